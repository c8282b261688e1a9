/** The short form of a fleet file: every field, once. Reading, errors and docs/fleet_file.md come from this table. */
import {
  bool,
  countOrPercent,
  deferred,
  duration,
  either,
  int,
  list,
  looseText,
  map,
  number,
  object,
  oneOf,
  optional,
  quantity,
  type ReadBy,
  required,
  str,
} from '../schema.ts';

const MODEL_NAME = { pattern: /^[\w.][\w./:-]{0,252}$/, form: 'a name of letters, digits and . _ - / :' };
const LABEL = { pattern: /^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$/, form: 'a name of small letters, digits, - and .' };

const share = () => int({ min: 0, max: 100 });

const PROBE = object({
  path: optional(str({ pattern: /^\//, form: 'a path that begins with /' }), 'What is asked with GET.'),
  initialDelay: optional(duration(), 'Wait before the first one. Default 0.'),
  period: optional(duration(), 'From one to the next.'),
  timeout: optional(duration(), 'Longer is a failure.'),
  successThreshold: optional(int({ min: 1 }), 'Successes in a row that count. Default 1.'),
  failureThreshold: optional(int({ min: 1 }), 'Failures in a row that count.'),
});

/** What a replica is: of the model, and what a canary may have otherwise. */
const TEMPLATE = {
  model: optional(
    str(),
    'Folder (`./` = beside this file), `owner/name` of Hugging Face, or a URI: `hf://`, `file://`, `pvc://`. Default: the embedded model.',
  ),
  args: optional(list(looseText()), 'Flags of `tokenmill serve` (docs/flags.md), as on the command line.'),
  env: optional(map(looseText()), 'Variables of the environment.'),
  cpu: optional(quantity(), 'Cores, e.g. `2` or `500m`. Default: what the plan of the model says.'),
  memory: optional(
    quantity(),
    'Bytes, e.g. `4Gi`; a replica starts where so much is free. Default: what the plan of the model says.',
  ),
};

const REPLICAS = object({
  min: optional(int({ min: 0 }), 'Fewest; 0 = none while nobody asks. Default 1.'),
  max: required(int({ min: 1 }), 'Most.'),
  standby: optional(
    int({ min: 0 }),
    'Replicas kept asleep beside those that serve: weights mapped, no KV cache. They wake in far less than a start. Only ' +
      '`simulate` knows them yet: `tokenmill serve` cannot sleep, and `up` says so and does without. Default 0.',
  ),
});

const SCALING = object({
  rule: optional(
    oneOf('proactive', 'signals', 'knative'),
    '`proactive` (default): predicts demand from the arrivals and the measured start time, and keeps the objectives. ' +
      "`signals`: the rule of KEDA and the HorizontalPodAutoscaler over the targets given. `knative`: Knative's autoscaler.",
  ),
  ttftP95Ms: optional(
    int({ min: 1 }),
    'Time to the first token, 95th percentile, ms. `proactive`: the objective; `signals`: a target.',
  ),
  tpotP95Ms: optional(
    int({ min: 1 }),
    'Time per output token, 95th percentile, ms. `proactive`: the objective; `signals`: a target.',
  ),
  concurrency: optional(
    number({ min: 0.01 }),
    'Requests in flight that a replica carries. `proactive` learns it when it is not given.',
  ),
  waiting: optional(number({ min: 0.01 }), '`signals`: requests waiting, a replica.'),
  kvUse: optional(number({ min: 0.01, max: 1 }), '`signals`: share of the KV cache in use.'),
  tokensPerSecond: optional(number({ min: 0.01 }), '`signals`: output tokens per second, a replica.'),
  requestsPerSecond: optional(number({ min: 0.01 }), '`signals` and `knative`: requests per second, a replica.'),
  idle: optional(
    duration(),
    'Without a request for so long the last replica goes (with `min: 0`). Default 5m; `knative`: 0s after its window.',
  ),
  upWindow: optional(
    duration(),
    '`signals`: the lowest count wanted within this time counts when growing. Default 0s.',
  ),
  downWindow: optional(
    duration(),
    '`signals`: the highest count wanted within this time counts when shrinking. Default 5m.',
  ),
  window: optional(duration(), '`knative`: the time averaged over. Default 60s.'),
});

const ROLLOUT = object({
  strategy: optional(
    oneOf('rolling', 'recreate', 'blueGreen', 'canary'),
    '`rolling` (default): replica by replica. `recreate`: old ones first go. `blueGreen`: traffic moves when all new ones are ready. ' +
      '`canary`: by `steps`.',
  ),
  maxSurge: optional(countOrPercent(), 'Replicas beyond the number wanted. Default 25%.'),
  maxUnavailable: optional(countOrPercent(), 'Replicas that may be missing. Default 25%.'),
  steps: optional(
    list(
      object({
        percent: required(int({ min: 1, max: 100 }), 'Share of the requests for the new revision.'),
        pause: optional(duration(), 'Wait before the next step. Default 0s.'),
      }),
      { max: 100 },
    ),
    'Of `strategy: canary`, growing; the last is 100.',
  ),
  analysis: optional(
    object({
      errorRateMargin: optional(
        number({ min: 0, max: 1 }),
        "Most that the share of errors may be above the stable revision's. Default 0.02.",
      ),
      ttftRatio: optional(
        number({ min: 1 }),
        'Most that the time to the first token may be, as a multiple. Default 1.5.',
      ),
      tpotRatio: optional(number({ min: 1 }), 'Most that the time per token may be, as a multiple. Default 1.5.'),
      falseAlarm: optional(
        number({ min: 0.0001, max: 0.5 }),
        'Probability that a good revision is judged bad. Default 0.05.',
      ),
      maxRequests: optional(
        int({ min: 1 }),
        'Without a verdict after so many requests it counts as good. Default 5000.',
      ),
      promote: optional(bool(), 'A good one goes on by itself. Default true.'),
      rollback: optional(bool(), 'A bad one goes back by itself. Default true.'),
    }),
    'The new revision is compared with the stable one while it has a share. Default: nobody judges.',
  ),
  progressDeadline: optional(duration(), 'Without progress for so long it has failed. Default 10m.'),
  history: optional(int({ min: 0 }), 'Old revisions kept. Default 10.'),
});

const QUEUE = object({
  maxRequests: optional(int({ min: 0 }), 'Requests held while no replica can take them. Default 10000.'),
  maxBytes: optional(quantity(), 'Bytes of them. Default 256Mi.'),
  ttl: optional(duration(), 'Held at most so long. Default 60s.'),
  coldTtl: optional(duration(), 'Held at most so long while there is no replica. Default 5m.'),
});

const TRAFFIC = object({
  pins: optional(
    list(
      object({
        header: required(str(), 'Name of a header.'),
        value: required(str(), 'Its value.'),
        to: required(str(), 'Name of a canary, `latest`, `prev` or a revision.'),
      }),
      { max: 64 },
    ),
    'Requests that match go there, whatever the shares say.',
  ),
  stickyBy: optional(str(), 'The same value of this header meets the same revision. Default: each request draws.'),
  shadow: optional(
    object({
      to: required(str(), 'Name of a canary or of another model.'),
      percent: required(share(), 'Share of the requests.'),
    }),
    'A copy goes there, and its answer nowhere.',
  ),
  queue: optional(QUEUE, 'Requests that wait in the gateway.'),
  fallbacks: optional(
    list(str(), { max: 16 }),
    'Models, or names of `gateway.externals`, asked in turn when no replica answers.',
  ),
  priority: optional(int(), 'Of requests that give none; below 0 = dropped first. Default 0.'),
  hedgeAfter: optional(duration(), 'Without a token for so long a second replica is asked too. Default: never.'),
  idleTimeout: optional(duration(), 'Silence within a stream that ends it. Default 5m.'),
});

const CANARY = object({
  name: required(str(LABEL), 'Its name, for pins and in reports.'),
  percent: required(share(), 'Share of the requests once it is ready.'),
  minReplicas: optional(int({ min: 0 }), "Fewest replicas of it. Default: its share of the model's."),
  ...TEMPLATE,
});

export const MODEL = object({
  name: required(str(MODEL_NAME), 'What requests call it.'),
  aliases: optional(list(str(MODEL_NAME), { max: 64 }), 'Other names for it.'),
  ...TEMPLATE,
  replicas: optional(
    either(int({ min: 0 }), (node) => node.kind === 'scalar', REPLICAS),
    'A number, or the bounds between which `scaling` moves. Default 1.',
  ),
  scaling: optional(SCALING, 'How the number of replicas follows the load.'),
  canaries: optional(
    list(CANARY, { max: 16 }),
    "Other templates that serve a share of the requests. What they do not say is the model's.",
  ),
  rollout: optional(ROLLOUT, 'How a changed template replaces the old one.'),
  traffic: optional(TRAFFIC, 'How requests find a replica.'),
  readiness: optional(PROBE, 'Gets requests while it succeeds. Default: `/ready` every 1s, timeout 1s, 2 failures.'),
  liveness: optional(PROBE, 'Restarted when it fails. Default: `/health` every 10s, timeout 5s, 10 failures.'),
  startup: optional(
    PROBE,
    'The others begin when it succeeds. Default: `/ready` every 500ms, timeout 1s, 3600 failures.',
  ),
  terminationGrace: optional(duration(), 'From the stop to SIGKILL. Default 30s.'),
  preStop: optional(duration(), "Between leaving the gateway's table and SIGTERM. Default 0s."),
  minReady: optional(duration(), 'Ready for so long before it counts. Default 0s.'),
  stopped: optional(bool(), 'No replicas and no route, the entry stays. Default false.'),
  labels: optional(map(looseText()), 'For selectors of an InferencePool.'),
});

export const GATEWAY = object({
  host: optional(str(), 'Address to bind. Default 127.0.0.1.'),
  port: optional(int({ min: 0, max: 65_535 }), 'TCP port; 0 = a free one. Default 8080.'),
  externals: optional(
    list(
      object({
        name: required(str(MODEL_NAME), 'As `fallbacks` call it.'),
        url: required(str({ pattern: /^https?:\/\/[^\s/]+/, form: 'a URL of http or https' }), 'Up to and with `/v1`.'),
        model: required(str(), 'What requests call the model there.'),
        keyEnv: optional(
          str({ pattern: /^[A-Za-z_]\w*$/, form: 'the name of a variable' }),
          'Variable that holds the key.',
        ),
      }),
      { max: 64 },
    ),
    'OpenAI-compatible servers that fallbacks may name.',
  ),
  scorers: optional(map(number({ min: 0 })), "Weights of the picker's scorers by name. Default: those of the scorers."),
  objectives: optional(map(int()), 'Names of priorities, as requests give them.'),
  requireKey: optional(bool(), 'Every request must carry a key. Default false.'),
});

/** `models` is read entry by entry, by {@link MODEL}. */
export const NATIVE = object({
  models: optional(list(deferred(MODEL), { max: 256 }), 'One entry a model.'),
  gateway: optional(deferred(GATEWAY), 'Where requests come in.'),
});

export type ModelValue = ReadBy<typeof MODEL>;
export type GatewayValue = ReadBy<typeof GATEWAY>;
export type TemplateValue = Pick<ModelValue, 'model' | 'args' | 'env' | 'cpu' | 'memory'>;
export type ProbeValue = ReadBy<typeof PROBE>;
export type ScalingValue = ReadBy<typeof SCALING>;
export type RolloutValue = ReadBy<typeof ROLLOUT>;
