/// <reference types="node" />
import type { IncomingMessage, ServerResponse } from 'node:http';

export interface Checkpoint<S = unknown> { step: number; state: S; stateVersion?: number }
export interface TaskOptions {
  kind?: string; session?: string;
  /** Idempotency key: the task is done once. */
  key?: string;
  /** What it takes to do the task from its start, elsewhere too. JSON. */
  input?: unknown;
  traceparent?: string; task?: string;
}
export interface Figures {
  tokens_in?: number; tokens_out?: number; cost_usd?: number; tool_calls?: number; steps?: number;
  ctx_used?: number; ctx_max?: number; quality?: number; ttft_ms?: number;
}
export interface Drain { deadline_ms: number; reason: string; to_release?: string }

export class Refused extends Error { readonly code: string }
export class Drained extends Error {}
export class Cancelled extends Error {}
export class Duplicate extends Error { readonly state: 'running' | 'done'; readonly outcome?: string; readonly result?: unknown }
export class Indeterminate extends Error {}

export class Task {
  readonly id: string; readonly key?: string; readonly kind?: string; readonly session?: string;
  readonly input?: any; readonly traceparent?: string; readonly fence: number; readonly attempt: number;
  readonly checkpoint: Checkpoint<any> | null;
  /** Aborted when the task is cancelled. */
  readonly signal: AbortSignal;
  readonly shouldYield: boolean; readonly checkpointWanted?: boolean;
  save(step: number, state: unknown, options?: { safe?: boolean; stateVersion?: number }): Promise<void>;
  effect<T>(kind: string, key: string, run: (idempotencyKey: string) => T | Promise<T>, options?: { desc?: string; compensate?: unknown }): Promise<T>;
  yield(reason?: string): Promise<void>;
  done(result?: unknown, figures?: Figures): void;
  end(error?: unknown): Promise<void>;
}
export interface Kv {
  put(key: string, value: unknown, options?: { ifAbsent?: boolean }): Promise<boolean>;
  get(key: string): Promise<any>;
  scan(prefix?: string, how?: { after?: string; limit?: number; reverse?: boolean }): Promise<[string, any][]>;
  delete(which: string | { prefix: string }): Promise<number>;
}
export class Worker {
  constructor(options?: { maxTasks?: number });
  readonly inside: boolean; readonly draining: boolean; readonly drain: Drain | null;
  readonly onDrain: ((drain: Drain) => void)[]; readonly onUndrain: (() => void)[]; readonly onRefresh: ((scope: string) => void | Promise<void>)[];
  ready(): Promise<void>;
  begin(options?: TaskOptions): Promise<Task>;
  task<T>(options: TaskOptions, body: (task: Task) => T | Promise<T>): Promise<T>;
  onTask(kind: string | null, run: (task: Task) => unknown): void;
  serve(): Promise<void>;
  kv(ns: string): Kv;
}
export function middleware(worker: Worker, options?: { kind?: (req: IncomingMessage) => string }):
  (req: IncomingMessage & { task?: Task }, res: ServerResponse, next: (error?: unknown) => void) => void;
