/** Copies of requests whose answers nobody gets: shadows within a service and mirrors of routes. Never in the way of the others. */
import { type ClientRequest, type ExchangeHost, renamedBody } from './client_request.ts';
import { Exchange } from './exchange.ts';
import type { RevisionLive, ServiceLive } from './service.ts';
import { DropSink } from './sink.ts';

/** Under way at once; more are dropped. */
const MAX_COPIES = 64;
const MAX_COPY_BYTES = 64 * 2 ** 20;
/** No client leaves a copy that hangs. */
const COPY_TIMEOUT_MS = 600_000;

export interface ShadowHost extends ExchangeHost {
  counted(
    service: ServiceLive,
    what: 'retries' | 'hedges' | 'fallbacks' | 'aborts' | 'shadowsSent' | 'shadowsDropped',
  ): void;
}

export class Shadows {
  private readonly host: ShadowHost;
  private copies = 0;
  private bytes = 0;

  constructor(host: ShadowHost) {
    this.host = host;
  }

  /** As the service's own rule says: a revision, or another model. */
  shadow(service: ServiceLive, request: ClientRequest): void {
    const { shadow } = service.route.traffic;
    if (shadow === null || this.host.draw() * 100 >= shadow.percent) return;
    const named = service.route.revisions.find(({ id, tags }) => id === shadow.to || tags.includes(shadow.to));
    const revision = named === undefined ? undefined : service.revisions.get(named.id);
    const other = revision === undefined ? this.host.serviceOf(shadow.to) : null;
    if (revision !== undefined) this.send(service, revision, request);
    else if (other !== null) this.mirror(other, request);
  }

  mirror(service: ServiceLive, request: ClientRequest): void {
    const body = renamedBody(request, service.route.models[0] as string);
    const copy = body === request.body ? request : { ...request, body };
    let most: RevisionLive | undefined;
    let share = -1;
    for (const { id, percent, endpoints } of service.route.revisions) {
      if (percent <= share || endpoints.length === 0) continue;
      most = service.revisions.get(id);
      share = percent;
    }
    if (most !== undefined) this.send(service, most, copy);
  }

  private send(service: ServiceLive, revision: RevisionLive, request: ClientRequest): void {
    const bytes = request.body?.length ?? 0;
    if (this.copies >= MAX_COPIES || this.bytes + bytes > MAX_COPY_BYTES || revision.endpoints.length === 0) {
      this.host.counted(service, 'shadowsDropped');
      return;
    }
    this.host.counted(service, 'shadowsSent');
    this.copies++;
    this.bytes += bytes;
    const onEnd = (): void => {
      this.copies--;
      this.bytes -= bytes;
    };
    const copy = { ...request, timeoutMs: request.timeoutMs || COPY_TIMEOUT_MS };
    new Exchange(this.host, service, copy, new DropSink(), { shadowOf: revision, onEnd }).start();
  }
}
