/** What a fleet file asks for, for people: `tokenmill up --dry-run`. Values of variables, which may be secrets, are not shown. */
import { formatBytes } from '../../config/format.ts';
import { UNBOUNDED_REPLICAS } from '../../fleet/spec/defaults.ts';
import type {
  FleetSpec,
  GraphSpec,
  ReplicaTemplate,
  RolloutSpec,
  RouteMatch,
  RouteSpec,
  ServiceSpec,
  TrafficSpec,
} from '../../fleet/spec/fleet_spec.ts';
import { durationText, replicasText, ruleLines } from './rule_text.ts';

export function fleetPlanText(spec: FleetSpec): string {
  const { gateway, services, routes, graphs, notices } = spec;
  const key = gateway.requireKey ? ', every request with a key' : '';
  return [
    `Gateway on http://${gateway.host}:${gateway.port}${key}`,
    ...gateway.externals.map(({ name, url, model }) => `  external ${name}: ${model} at ${url}`),
    ...Object.entries(gateway.objectives).map(([name, priority]) => `  objective ${name}: priority ${priority}`),
    '',
    ...services.flatMap((service) => [...serviceLines(service), '']),
    ...routes.flatMap((route) => [...routeLines(route), '']),
    ...graphs.flatMap((graph) => [...graphLines(graph), '']),
    memoryLine(services),
    ...(notices.length === 0 ? [] : ['', `${notices.length} ${notices.length === 1 ? 'notice' : 'notices'}:`]),
    ...notices.map(
      ({ at, object, field, text }) =>
        `  ${at.file}:${at.line}:${at.column} ${object}${field ? ` ${field}` : ''}: ${text}`,
    ),
    '',
  ].join('\n');
}

function serviceLines(service: ServiceSpec): string[] {
  const { id, kind, at, models, template, canaries, scaling, rollout, traffic, canaryTrafficPercent, stopped } =
    service;
  const [rule, ...watched] = ruleLines(scaling);
  const rows: (readonly [string, string])[] = [
    ['names', models.join(', ')],
    ...templateRows(template),
    ['replicas', stopped ? 'none: stopped' : replicasText(scaling)],
    ['scaling', rule ?? 'none'],
    ...watched.map((line) => ['', line] as const),
    ...canaries.map(({ name, percent, minReplicas, template: own }) => {
      const count = minReplicas === null ? '' : `, at least ${minReplicas}`;
      return ['canary', `${name}: ${percent}% of the requests${count}; ${changes(template, own)}`] as const;
    }),
    [
      'rollout',
      canaryTrafficPercent === null
        ? rolloutText(rollout)
        : `the newest revision gets ${canaryTrafficPercent}% of the requests`,
    ],
    ...trafficRows(traffic),
  ];
  return [`${kind} ${id} (${at.file}:${at.line})`, ...rows.map(([name, text]) => `  ${name.padEnd(10)}${text}`)];
}

function templateRows({ model, args, env, cpuMilli, memoryBytes, preStopMs, terminationGraceMs }: ReplicaTemplate) {
  const names = Object.keys(env);
  const rows: (readonly [string, string])[] = [['model', model === '' ? 'the embedded one' : model]];
  if (args.length > 0) rows.push(['flags', args.join(' ')]);
  if (names.length > 0) rows.push(['variables', names.join(', ')]);
  const memory = memoryBytes === null ? 'as the model needs' : formatBytes(memoryBytes);
  rows.push(['a replica', `${cpuMilli === null ? 'cores as planned' : `${cpuMilli / 1000} cores`}, memory ${memory}`]);
  const drain = preStopMs === 0 ? '' : `${durationText(preStopMs)} before SIGTERM, `;
  rows.push(['stops', `${drain}SIGKILL after ${durationText(terminationGraceMs)}`]);
  return rows;
}

/** How a canary differs. */
function changes(stable: ReplicaTemplate, own: ReplicaTemplate): string {
  const parts = [
    own.model === stable.model ? null : `model ${own.model || 'the embedded one'}`,
    own.args.join(' ') === stable.args.join(' ') ? null : `flags ${own.args.join(' ') || 'none'}`,
    JSON.stringify(own.env) === JSON.stringify(stable.env) ? null : 'other variables',
    own.memoryBytes === stable.memoryBytes
      ? null
      : `memory ${own.memoryBytes === null ? 'as planned' : formatBytes(own.memoryBytes)}`,
    own.cpuMilli === stable.cpuMilli ? null : 'other cores',
  ].filter((part) => part !== null);
  return parts.length === 0 ? 'the same template' : parts.join(', ');
}

const amount = (value: RolloutSpec['maxSurge']) => (typeof value === 'number' ? String(value) : `${value.percent}%`);

function rolloutText({ strategy, maxSurge, maxUnavailable, steps, analysis, progressDeadlineMs }: RolloutSpec): string {
  const how = {
    rolling: `rolling, ${amount(maxSurge)} more and ${amount(maxUnavailable)} fewer at a time`,
    recreate: 'old replicas stop before new ones start',
    blueGreen: 'traffic moves when all new replicas are ready',
    canary: `by steps: ${steps.map(({ percent, pauseMs }) => `${percent}%${pauseMs === 0 ? '' : ` for ${durationText(pauseMs)}`}`).join(', ')}`,
  }[strategy];
  const judged =
    analysis === null
      ? ''
      : `, judged against the stable revision${analysis.rollback ? ' and taken back when worse' : ''}`;
  return `${how}${judged}; failed after ${durationText(progressDeadlineMs)} without progress`;
}

function trafficRows({ pins, stickyBy, shadow, fallbacks, queue, priority, hedgeAfterMs }: TrafficSpec) {
  const rows: (readonly [string, string])[] = [
    [
      'queue',
      `${queue.maxRequests} requests, ${durationText(queue.ttlMs)}; ${durationText(queue.coldTtlMs)} while none is up`,
    ],
    ...pins.map(({ header, value, to }) => ['pinned', `${header}: ${value} to ${to}`] as const),
  ];
  if (stickyBy !== null) rows.push(['sticky by', stickyBy]);
  if (shadow !== null) rows.push(['shadow', `${shadow.percent}% copied to ${shadow.to}`]);
  if (fallbacks.length > 0) rows.push(['fallbacks', fallbacks.join(', then ')]);
  if (priority !== 0) rows.push(['priority', String(priority)]);
  if (hedgeAfterMs > 0) rows.push(['hedged', `after ${durationText(hedgeAfterMs)} without a token`]);
  return rows;
}

function routeLines({ id, hostnames, rules }: RouteSpec): string[] {
  const hosts = hostnames.length === 0 ? 'any host' : hostnames.join(', ');
  return [
    `Route ${id}, ${hosts}`,
    ...rules.flatMap(({ matches, backends, pathPrefixTo, mirrorTo, requestTimeoutMs }) => {
      const total = backends.reduce((sum, { weight }) => sum + weight, 0);
      const to = backends.map(({ service, weight }) => {
        const share = backends.length === 1 || total === 0 ? '' : ` ${Math.round((weight / total) * 1000) / 10}%`;
        return `${service ?? '500'}${share}`;
      });
      const extras = [
        pathPrefixTo === null ? '' : `, prefix becomes ${pathPrefixTo}`,
        mirrorTo === null ? '' : `, copied to ${mirrorTo}`,
        requestTimeoutMs === 0 ? '' : `, at most ${durationText(requestTimeoutMs)}`,
      ];
      return `  ${matches.map(matchText).join(' or ')} -> ${to.join(', ') || '500'}${extras.join('')}`;
    }),
  ];
}

function matchText({ path, method, headers, query }: RouteMatch): string {
  const named = [...headers.map((item) => ({ ...item, mark: '' })), ...query.map((item) => ({ ...item, mark: '?' }))];
  const form = { Exact: '', PathPrefix: '*', RegularExpression: ' (pattern)' }[path.type];
  return [
    ...(method === null ? [] : [method]),
    `${path.value}${form}`,
    ...named.map(({ name, value, type, mark }) => `${mark}${name}${type === 'Exact' ? '=' : '~'}${value}`),
  ].join(' ');
}

function graphLines({ id, nodes }: GraphSpec): string[] {
  return [
    `Graph ${id}`,
    ...Object.entries(nodes).map(([name, { router, steps }]) => {
      const targets = steps.map(({ target, weight, condition }) => {
        const to = 'node' in target ? target.node : 'service' in target ? target.service : target.url;
        return `${to}${weight === null ? '' : ` ${weight}%`}${condition === null ? '' : ` if ${condition}`}`;
      });
      return `  ${name}: ${router} of ${targets.join(', ')}`;
    }),
  ];
}

/** What the services say themselves; the rest depends on the models. */
function memoryLine(services: readonly ServiceSpec[]): string {
  const running = services.filter(({ stopped }) => !stopped);
  const known = running.filter(({ template }) => template.memoryBytes !== null);
  const sum = (count: (service: ServiceSpec) => number) =>
    known.reduce((total, service) => total + (service.template.memoryBytes ?? 0) * count(service), 0);
  const rest = running.length - known.length;
  const others =
    rest === 0 ? '' : `; ${rest} ${rest === 1 ? 'service says' : 'services say'} none and take what their models need`;
  const bounded = known.every(({ scaling }) => scaling.maxReplicas < UNBOUNDED_REPLICAS);
  const most = bounded ? formatBytes(sum(({ scaling }) => scaling.maxReplicas + scaling.standby)) : 'no bound';
  return known.length === 0
    ? `Memory asked for: none${others}`
    : `Memory asked for: ${formatBytes(sum(({ scaling }) => scaling.minReplicas))} at least, ${most} at most${others}`;
}
