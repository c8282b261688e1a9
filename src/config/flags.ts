export type EngineConfig = Readonly<Record<string, unknown>>;
