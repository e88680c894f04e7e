// The tutorial's client as it stands there, but for the token: joins a room and prints what `test` brings.
//
//     node tutorial.js URL UUID      the access token comes in TOKEN

import { io } from 'socket.io-client';

const [url, uuid] = process.argv.slice(2);

const socket = io(url, {
  transports: ['websocket'],
  extraHeaders: { Authorization: `Bearer ${process.env.TOKEN}` },
});

socket.on('connect', () => {
  socket.emit('JoinRoom', [uuid]);
  // Answered behind the join: whoever reads this line knows that the room is live.
  socket.emit('Check', 'joined');
});

socket.on('Check', (data) => console.error(JSON.stringify(data)));
socket.on('connect_error', (error) => console.error(JSON.stringify({ connect_error: error.message, data: error.data })));
socket.on('$refused', (data) => console.error(JSON.stringify({ refused: data })));

socket.on('test', (data) => console.log(JSON.stringify(data)));
