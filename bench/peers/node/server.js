// The tutorial's design as it is on Node.js today: one change stream with `updateLookup`, a room per UUID, and no
// authentication. It is what a user would run instead of livedocs, so nothing here is slower than it has to be.
//
//   node server.js --port 4000 --uri mongodb://127.0.0.1:27017/?replicaSet=rs0 --database acme --collection test
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { MongoClient } from 'mongodb';
import { Server } from 'socket.io';

const { values } = parseArgs({
  options: {
    port: { type: 'string' },
    uri: { type: 'string' },
    database: { type: 'string' },
    collection: { type: 'string', default: 'test' },
  },
});

const http = createServer();
const io = new Server(http);

io.on('connection', (socket) => {
  socket.on('JoinRoom', (uuids, ack) => {
    for (const uuid of uuids) socket.join(uuid);
    if (typeof ack === 'function') ack();
  });
  socket.on('LeaveRoom', (uuids, ack) => {
    for (const uuid of uuids) socket.leave(uuid);
    if (typeof ack === 'function') ack();
  });
  socket.on('Check', (message) => socket.emit('Check', message));
});

const client = await new MongoClient(values.uri).connect();
const changes = client.db(values.database).collection(values.collection).watch([], { fullDocument: 'updateLookup' });

changes.on('change', (change) => {
  const document = change.fullDocument;
  // A delete names no UUID, and an update whose document has gone since has none to look up.
  if (!document?.uuid) return;
  const uuid = document.uuid.toString();
  const data = change.operationType === 'update' ? change.updateDescription.updatedFields : document;
  io.to(uuid).emit(change.ns.coll, { ...data, uuid });
});

// The stream is opened by its first use; whoever waits for the line below may write from then on.
await new Promise((resolve) => {
  changes.once('init', resolve);
  changes.once('resumeTokenChanged', resolve);
});
http.listen(Number(values.port), '127.0.0.1', () => console.log('ready'));

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0));
