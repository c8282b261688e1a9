import type { TeamMeasurements } from '../backends/cpu/cpu_backend.ts';

export function teamText(threads: number, { barrierUs, runUs, wakeUs }: TeamMeasurements): string {
  const us = (time: number) => `${time.toFixed(1)} us`;
  return `${threads} threads meet in ${us(barrierUs)}, begin and end together in ${us(runUs)}, from sleep in ${us(wakeUs)}`;
}
