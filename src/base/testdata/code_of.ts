import { TokenmillError } from '../errors.ts';

/** The code of the error that `run` throws; 'none' when it throws none. */
export function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof TokenmillError) return error.code;
    throw error;
  }
  return 'none';
}
