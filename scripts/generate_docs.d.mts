/** Types of generate_docs.mjs for the test that holds the pages to their tables. */
export interface DocTables {
  readonly flags: { describeFlags(): string };
  readonly metrics: { describeMetrics(): string };
  readonly ops: { describeOps(): string };
  readonly fleetFile: { describeFleetFile(): string };
  readonly errors: {
    readonly ERRORS: Readonly<
      Record<
        string,
        { readonly status: number; readonly type: string; readonly exitCode: number; readonly doc: string }
      >
    >;
  };
}

export function renderPages(tables: DocTables): Record<string, string>;
