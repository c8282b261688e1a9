/** The EnginePlan as /plan shows it: without secrets. */
const SECRET = /(api_?key|hf_?token|password|secret)/i;

export function publicPlan(plan: object): unknown {
  return JSON.parse(
    JSON.stringify(plan, (key, value: unknown) =>
      SECRET.test(key) && value !== null && value !== undefined ? '(hidden)' : value,
    ),
  );
}
