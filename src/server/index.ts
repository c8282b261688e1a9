/** The server as a library: `createServer(llm, config)` over any AsyncLLM. */
export { DEFAULT_SERVER_CONFIG, openBindingWarning, type ServerConfig, serverConfigOf } from './config.ts';
export { drain, onTermination, type ShutdownOptions } from './drain.ts';
export { checkAddress, type ListenAddress } from './listen.ts';
export { createServer, type Server } from './server.ts';
export { readTls, type TlsConfig, tlsConfigOf } from './tls.ts';
