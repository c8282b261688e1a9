/** The metrics table as Markdown, for the generated documentation. */
import { BUCKET_FAMILIES, type BucketFamily } from './buckets.ts';
import { METRICS, type MetricDefinition } from './definitions.ts';

function labelText(definition: MetricDefinition): string {
  const labels = Object.entries(definition.labels);
  if (labels.length === 0) return '';
  return labels.map(([label, values]) => (values ? `\`${label}\` = ${values.join(' / ')}` : `\`${label}\``)).join(', ');
}

function bucketText(family: BucketFamily): string {
  const bounds = BUCKET_FAMILIES[family];
  return bounds ? bounds.join(' ') : '1 2 5 10 20 50 ... up to max_model_len';
}

/** One table of current metrics, one of the old names, one of the bucket families. */
export function describeMetrics(): string {
  const all = Object.entries(METRICS) as [string, MetricDefinition][];
  const lines = ['| Name | Type | Unit | Labels | Buckets | Meaning |', '| --- | --- | --- | --- | --- | --- |'];
  for (const [name, d] of all) {
    if (d.legacy) continue;
    lines.push(
      `| \`${name}\` | ${d.type} | ${d.unit} | ${labelText(d)} | ${d.buckets ? `\`${d.buckets}\`` : ''} | ${d.help} |`,
    );
  }
  lines.push('', '### Old names, with `--legacy-metrics`', '', '| Name | Type | Now |', '| --- | --- | --- |');
  for (const [name, d] of all) if (d.legacy) lines.push(`| \`${name}\` | ${d.type} | \`${d.legacy}\` |`);
  lines.push(
    '',
    '### Bucket families, for `--custom-histogram-buckets`',
    '',
    '| Family | Upper bounds |',
    '| --- | --- |',
  );
  for (const family of Object.keys(BUCKET_FAMILIES) as BucketFamily[])
    lines.push(`| \`${family}\` | ${bucketText(family)} |`);
  return `${lines.join('\n')}\n`;
}
