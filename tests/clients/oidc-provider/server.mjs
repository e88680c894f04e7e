// npm's oidc-provider, set up as an operator would for livedocs. Settings come as JSON on the command line:
// port, serverUrl (where browsers are sent back to), secret, publicKey (a JWK, of the client that has no secret), ttl.
import { generateKeyPairSync } from 'node:crypto';

import Provider from 'oidc-provider';

const { port, serverUrl, secret, publicKey, ttl } = JSON.parse(process.argv[2]);
const jwk = (kid, key, alg) => ({ ...key.privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' });
const people = { alice: ['acme', ['staff']], carol: ['globex', []] };

const web = (client_id, more) => ({
  client_id,
  client_secret: secret,
  redirect_uris: [`${serverUrl}/auth/callback`],
  post_logout_redirect_uris: [`${serverUrl}/`],
  grant_types: ['authorization_code', 'refresh_token'],
  response_types: ['code'],
  id_token_signed_response_alg: 'ES256',
  ...more,
});
const service = (client_id) => ({
  client_id,
  client_secret: secret,
  redirect_uris: [],
  response_types: [],
  grant_types: ['client_credentials'],
  scope: 'livedocs:write',
});

const provider = new Provider(`http://localhost:${port}`, {
  clients: [
    web('livedocs'),
    web('livedocs-post', { token_endpoint_auth_method: 'client_secret_post' }),
    web('livedocs-key', {
      client_secret: undefined,
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'ES256',
      jwks: { keys: [{ ...publicKey, kid: 'k1', use: 'sig', alg: 'ES256' }] },
    }),
    web('livedocs-jwt'),
    service('acme-service'),
    service('acme-service-jwt'),
  ],
  jwks: {
    keys: [
      jwk('ec', generateKeyPairSync('ec', { namedCurve: 'P-256' }), 'ES256'),
      jwk('rsa', generateKeyPairSync('rsa', { modulusLength: 2048 }), 'RS256'),
    ],
  },
  cookies: { keys: [secret] },
  findAccount: (ctx, sub) => (people[sub] ? { accountId: sub, claims: () => ({ sub }) } : undefined),
  extraTokenClaims(ctx, token) {
    const [tenant, groups] = people[token.accountId] ?? ['acme', []];
    return { tenant, groups };
  },
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  scopes: ['openid', 'offline_access', 'livedocs:write'],
  ttl: { AccessToken: ttl, ClientCredentials: ttl, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600, IdToken: 600 },
  features: {
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId.startsWith('livedocs') },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'urn:livedocs',
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource, client) => ({
        scope: 'livedocs:write',
        audience: 'livedocs',
        accessTokenTTL: ttl,
        ...(client.clientId.endsWith('-jwt')
          ? { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }
          : { accessTokenFormat: 'opaque' }),
      }),
    },
  },
});

provider.listen(port, '127.0.0.1', () => console.log('ready'));
