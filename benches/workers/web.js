// The server of the reload and throughput benches.
//
//   GET /          a short answer
//   GET /long?s=N  answers after N seconds
//   GET /sse?s=N   streams for N seconds; the last event is "done"
//
// Listens on descriptor 3 when LISTEN_FDS says so, else on PORT. STYLE tells how it ends:
//   dies       (default) SIGTERM ends it at once
//   cooperates stops accepting, answers what it has with "Connection: close", closes idle connections after a second
//   pm2        what PM2's documentation asks of an app: says "ready", and server.close() on SIGINT
// CLUSTER=N forks N workers by Node's own cluster.
'use strict';
const cluster = require('node:cluster');
const http = require('node:http');
const net = require('node:net');

const count = Number(process.env.CLUSTER || 0);
if (count && cluster.isPrimary) {
  for (let i = 0; i < count; i++) cluster.fork();
} else {
  serve();
}

function serve() {
  const style = process.env.STYLE || 'dies';
  let closing = false;
  const server = http.createServer((request, response) => {
    if (closing) response.setHeader('Connection', 'close');
    if (request.url === '/') return response.end('ok\n');
    const url = new URL(request.url, 'http://x');
    const ms = 1000 * Number(url.searchParams.get('s') || 10);
    if (url.pathname === '/long') return setTimeout(() => response.end('done\n'), ms);
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    const end = Date.now() + ms;
    const timer = setInterval(() => {
      if (Date.now() < end) return response.write('data: tick\n\n');
      clearInterval(timer);
      response.end('data: done\n\n');
    }, 250);
    response.on('close', () => clearInterval(timer));
  });
  server.keepAliveTimeout = 0;
  const at = process.env.LISTEN_FDS ? { fd: 3 } : { port: Number(process.env.PORT), host: '127.0.0.1' };
  server.listen(at, () => { if (style === 'pm2' && process.send) process.send('ready'); });
  if (style === 'cooperates') {
    process.on('SIGTERM', () => {
      if (closing) return;
      closing = true;
      // Not http's own close(), which closes idle connections at once, under the next request of their clients.
      net.Server.prototype.close.call(server, () => process.exit(0));
      setTimeout(() => server.closeIdleConnections(), 1000).unref();
    });
  }
  if (style === 'pm2') process.on('SIGINT', () => server.close(() => process.exit(0)));
}
