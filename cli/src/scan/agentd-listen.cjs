// Written by `agentctl init`, loaded before the program by `node --require`. A program that says server.listen(PORT)
// takes the socket that agentd holds for it instead of binding one, so that the next version can take over without a
// refused connection. Without agentd it changes nothing.
//
// It is needed no more once the program does it by itself:
//     const fd = process.env.AGENTD_FD_HTTP;
//     server.listen(fd ? { fd: Number(fd) } : PORT);
'use strict';
const net = require('node:net');

const fd = process.env.AGENTD_FD_HTTP;
const { listen } = net.Server.prototype;

if (fd !== undefined) {
  net.Server.prototype.listen = function (...args) {
    const [first] = args;
    const port = typeof first === 'object' && first !== null ? first.port : first;
    // Other ports of the program, such as one for its metrics, are its own.
    if (port === undefined || String(port) !== process.env.PORT) return listen.apply(this, args);
    net.Server.prototype.listen = listen;
    return listen.call(this, { fd: Number(fd) }, ...args.filter((arg) => typeof arg === 'function'));
  };
}
