import agentd from './index.js';
export const { Worker, Task, Refused, Drained, Cancelled, Duplicate, Indeterminate, middleware } = agentd;
