// Numbers as people read them.

export const kimg = (nimg) => `${plain(nimg / 1000, nimg < 10_000 ? 1 : 0)} kimg`;

export function plain(value, digits) {
  return value.toLocaleString("en", {maximumFractionDigits: digits ?? 0, minimumFractionDigits: 0});
}

export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return value.toLocaleString("en", {maximumSignificantDigits: 4});
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${plain(Math.floor(minutes / 60))} h ${String(minutes % 60).padStart(2, "0")} min`;
}

export function stageWords({resolution, alpha}) {
  return alpha < 1 ? `${resolution} × ${resolution}, ${Math.round(alpha * 100)}% in` : `${resolution} × ${resolution}`;
}

// The resolution and alpha at nimg, from a run's phases.
export function stageAt(phases, nimg) {
  const phase = phases.findLast(({start}) => start <= nimg) ?? phases[0];
  if (!phase) return {resolution: 4, alpha: 1};
  const share = (nimg - phase.start) / (phase.stop - phase.start);
  return {resolution: phase.resolution, alpha: phase.fading ? Math.min(1, share) : 1};
}

export const STATES = {
  training: "training",
  stopped: "stopped",
  done: "done",
  diverged: "diverged",
  unreadable: "cannot be read",
  gone: "gone",
};
