// SGD as a thermometer on one landscape of one parameter with a wide and a sharp valley: a bowl
// with a dip. The density is computed as in batchscaling.noise.stationary_density.

const BOWL = 0.5; // curvature
const DIP = { at: 2.5, depth: 2, width: 0.4 };
const NOISE = 800; // variance of one example's gradient, the same everywhere
const POINTS = 4001;

const dip = (theta) => DIP.depth * Math.exp(-0.5 * ((theta - DIP.at) / DIP.width) ** 2);

export const loss = (theta) => 0.5 * BOWL * theta ** 2 - dip(theta);

export const slope = (theta) => BOWL * theta + (dip(theta) * (theta - DIP.at)) / DIP.width ** 2;

export function curvature(theta) {
  const shape = 1 - ((theta - DIP.at) / DIP.width) ** 2;
  return BOWL + (dip(theta) / DIP.width ** 2) * shape;
}

// Where the slope changes its sign between `low` and `high`.
function stationaryPoint(low, high) {
  const sign = Math.sign(slope(high));
  for (;;) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) return middle;
    if (Math.sign(slope(middle)) === sign) high = middle;
    else low = middle;
  }
}

export const BARRIER = stationaryPoint(1.2, 2);
export const VALLEYS = ["wide", "sharp"].map((name) => {
  const at = name === "wide" ? stationaryPoint(-1, 1) : stationaryPoint(2.2, 2.7);
  return { name, at, curvature: curvature(at) };
});

/** The temperature: half of rate / (batch size (1 - momentum)) times the noise. */
export function temperature(lr, momentum, batchSize) {
  return (lr / (batchSize * (1 - momentum))) * (NOISE / 2);
}

/** Points from far left to far right of where SGD goes at a temperature. */
export function gridAt(temperature) {
  const end = 4 + 8 * Math.sqrt(temperature / BOWL);
  return Array.from({ length: POINTS }, (_, k) => -end + (2 * end * k) / (POINTS - 1));
}

/** The density of the stochastic differential equation in the long run, at each of `grid`. */
export function stationaryDensity(grid, temperature) {
  const exponent = [0];
  for (let k = 1; k < grid.length; k++) {
    const mean = (slope(grid[k - 1]) + slope(grid[k])) / 2;
    exponent.push(exponent[k - 1] - (mean * (grid[k] - grid[k - 1])) / temperature);
  }
  const top = exponent.reduce((a, b) => Math.max(a, b));
  const density = exponent.map((value) => Math.exp(value - top));
  const total = integral(grid, density, () => true);
  return density.map((value) => value / total);
}

/** The part of the density to the right of the barrier, in the sharp valley. */
export function sharpShare(grid, density) {
  return integral(grid, density, (theta) => theta > BARRIER);
}

// By the trapezoid rule, over the intervals whose middle passes `test`.
function integral(grid, values, test) {
  let sum = 0;
  for (let k = 1; k < grid.length; k++) {
    if (!test((grid[k - 1] + grid[k]) / 2)) continue;
    sum += ((values[k - 1] + values[k]) / 2) * (grid[k] - grid[k - 1]);
  }
  return sum;
}

/** The learning rate at and above which heavy-ball momentum leaves a valley of that curvature. */
export function highestRate(curvature, momentum) {
  return (2 * (1 + momentum)) / curvature;
}

/** SGD's exact variance over that of the equation, in a valley of that curvature. */
export function varianceRatio(lr, momentum, curvature) {
  const part = lr / highestRate(curvature, momentum);
  return part < 1 ? 1 / (1 - part) : Infinity;
}
