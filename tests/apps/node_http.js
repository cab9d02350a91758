// A server as Node's documentation writes it, with nothing done about signals: SIGTERM ends it at once.
'use strict';
const http = require('node:http');

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://test');
  const ms = 1000 * Number(url.searchParams.get('s'));
  if (url.pathname === '/sse') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (let n = 0; n < Math.floor(ms / 200); n += 1) {
      response.write(`data: ${n}\n\n`);
      await wait(200);
    }
    response.end('data: end\n\n');
  } else if (url.pathname === '/long') {
    await wait(ms);
    response.end('done\n');
  } else {
    response.end(`${process.env.VERSION ?? '-'} ${process.env.AGENTD_WORKER} ${process.pid}\n`);
  }
}).listen({ fd: Number(process.env.AGENTD_FD_HTTP) });
