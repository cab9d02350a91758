// A server that cooperates fully, so that not even a kept-alive connection is cut: on SIGTERM it stops accepting,
// answers what it has with `Connection: close`, closes connections that stay idle after a second, and ends.
'use strict';
const http = require('node:http');

const IDLE_MS = 1000;
let draining = false;
const idle = new Set();
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function answer(request, response) {
  const url = new URL(request.url, 'http://test');
  const ms = 1000 * Number(url.searchParams.get('s'));
  if (url.pathname === '/sse') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (let n = 0; n < Math.floor(ms / 200); n += 1) {
      response.write(`data: ${n}\n\n`);
      await wait(200);
    }
    response.end('data: end\n\n');
    return;
  }
  if (url.pathname === '/long') await wait(ms);
  // Decided as late as possible: the drain may have begun while the answer was made.
  if (draining) response.setHeader('Connection', 'close');
  response.end(url.pathname === '/long' ? 'done\n' : `${process.env.VERSION ?? '-'} ${process.env.AGENTD_WORKER} ${process.pid}\n`);
}

const server = http.createServer((request, response) => {
  idle.delete(request.socket);
  response.on('close', () => { if (!request.socket.destroyed) idle.add(request.socket); });
  return answer(request, response);
});
server.keepAliveTimeout = 60_000;
server.on('connection', (socket) => {
  idle.add(socket);
  socket.on('close', () => idle.delete(socket));
});

process.on('SIGTERM', () => {
  draining = true;
  // Node's own close() would cut idle connections at once, under requests that are on their way.
  server.closeIdleConnections = () => {};
  server.close();
  setTimeout(() => idle.forEach((socket) => socket.destroy()), IDLE_MS);
});

server.listen({ fd: Number(process.env.AGENTD_FD_HTTP) });
