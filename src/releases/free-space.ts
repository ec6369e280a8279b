import {readFileSync, statfsSync} from 'node:fs';
import {DeployError} from '../errors.ts';

export const RESERVE_BYTES = 16 * 1024 * 1024;
export const RESERVE_INODES = 200;

/** Errors: BUILD_FAILED with the mount and both figures when there is no room for a tree of this size. */
export function requireSpace(directory: string, need: {bytes: number; entries: number}): void {
  const {bavail, bsize, ffree, files} = statfsSync(directory);
  const bytes = bavail * bsize;
  if (bytes < need.bytes + RESERVE_BYTES) {
    throw new DeployError('BUILD_FAILED', `No room for a release on ${mountOf(directory)}: ${megabytes(bytes)} are free, ${megabytes(need.bytes + RESERVE_BYTES)} are needed.`, {
      hint: 'Make room there, or keep fewer releases (`release.keep`).',
    });
  }
  // Some file systems count no inodes and say 0 of 0.
  if (files > 0 && ffree < need.entries + RESERVE_INODES) {
    throw new DeployError('BUILD_FAILED', `No inodes for a release on ${mountOf(directory)}: ${ffree} are free, ${need.entries + RESERVE_INODES} are needed.`, {
      hint: 'Remove small files there, or keep fewer releases (`release.keep`).',
    });
  }
}

/** The mount point that a directory is on. */
export function mountOf(directory: string): string {
  let best = '/';
  for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const point = line.split(' ')[1]?.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    if (point !== undefined && point.length > best.length && (directory === point || directory.startsWith(`${point}/`))) best = point;
  }
  return best;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}
