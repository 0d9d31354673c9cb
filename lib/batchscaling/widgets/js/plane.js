// Four ways to choose where the gradient is taken, on a valley in the plane:
// f(x, y) = sqrt(x^2 + r^2) - r + h y^2 / 2. The smaller the roundness r, the sharper its bottom;
// the curvature across it is 1/r.

const ALONG = 0.1; // curvature h along the valley
export const START = [1.5, 2.5];
export const STEPS = 60;

/** The loss at a point. */
export function loss([x, y], roundness) {
  return Math.hypot(x, roundness) - roundness + (ALONG * y ** 2) / 2;
}

/** The gradient at a point. */
export function gradient([x, y], roundness) {
  return [x / Math.hypot(x, roundness), ALONG * y];
}

/** The points [x, y], x not negative, at which the loss is `level`, from low y to high. */
export function contour(level, roundness) {
  const end = Math.sqrt((2 * level) / ALONG);
  return Array.from({ length: 121 }, (_, k) => {
    const y = end * (k / 60 - 1);
    const rest = Math.max(level - (ALONG * y ** 2) / 2, 0);
    return [Math.sqrt(rest * (rest + 2 * roundness)), y];
  });
}

const plus = ([x, y], factor, [u, v]) => [x + factor * u, y + factor * v];

/** The points of each method, the first being the start. */
export function paths({ lr, momentum, extrapolation, roundness }) {
  const slope = (point) => gradient(point, roundness);
  const run = (step) => {
    let state = { point: START, other: [0, 0] };
    const points = [START];
    for (let t = 0; t < STEPS; t++) {
      state = step(state);
      points.push(state.point);
    }
    return points;
  };
  return {
    gradient: run(({ point }) => ({ point: plus(point, -lr, slope(point)) })),
    nesterov: run(({ point, other }) => {
      const ahead = plus(point, momentum, other);
      const velocity = plus(plus(ahead, -lr, slope(ahead)), -1, point);
      return { point: plus(point, 1, velocity), other: velocity };
    }),
    fresh: run(({ point }) => {
      const ahead = plus(point, -extrapolation, slope(point));
      return { point: plus(point, -lr, slope(ahead)) };
    }),
    past: run(({ point, other }) => {
      const found = slope(plus(point, -extrapolation, other));
      return { point: plus(point, -lr, found), other: found };
    }),
  };
}
