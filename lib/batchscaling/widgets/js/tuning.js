// The best learning rate of heavy-ball momentum for each batch size; SGD is momentum = 0.
//
// The search is that of batchscaling.nqm.tune with the momentum held fixed, in plain doubles. The
// rate is a fraction of the largest stable one, and its coordinate is
//
//   logit(fraction) - log(1 - momentum),
//
// so that small rates and rates close to the limit are both resolved. A grid over all of it serves
// every batch size, because the risk is decay + noise / batchSize; finer grids around the best
// point of each batch size follow. The steps reported are the exact first crossing.
//
// Where the risk swings, at large batches and a momentum near 1, this number jumps with the rate,
// and narrow windows of rates that no grid meets can do better.

import { heavyBall, stabilityLimit, stepsToTarget } from "./nqm.js";

const COORDINATES = [-16, 22];
const HIGHEST_LOGIT = 14;
// Short runs are followed step by step, because there the risk swings: up to so many steps on a
// grid of so many rates. Longer ones are bisected, on the last grid.
const GRIDS = [
  [32, 480],
  [128, 240],
  [512, 60],
];
const POINTS = 7; // of each finer grid, whose ends are the neighbours in the grid before
const ROUNDS = 3;
const MOST_LEVELS = 45;

/**
 * Yields now and then, and returns for each of the rising batch sizes {lr, steps}: the rate that reaches the
 * target first and its number of steps, or null where no rate reaches it.
 */
export function* tuneRate(problem, momentum, batchSizes, target) {
  const limit = stabilityLimit(problem, momentum);
  const rateAt = (coordinate) => {
    const logit = Math.min(coordinate + Math.log1p(-momentum), HIGHEST_LOGIT);
    return limit / (1 + Math.exp(-logit));
  };
  const count = (lr, batchSize, most) =>
    stepsToTarget(problem, heavyBall(lr, momentum), batchSize, target, most);
  const best = (grid, steps) => {
    const k = steps.indexOf(Math.min(...steps));
    return { coordinate: grid[k], steps: steps[k] };
  };
  const grids = GRIDS.map(([longest, points]) => {
    const grid = spaced(...COORDINATES, points);
    return { longest, grid, tables: buildTables(problem, momentum, grid.map(rateAt)) };
  });
  const found = [];
  for (const batchSize of batchSizes) {
    let point = { steps: Infinity };
    let used;
    for (used of grids) {
      point = best(used.grid, used.tables.shortRuns(batchSize, target, used.longest));
      yield;
      if (point.steps < Infinity) break;
    }
    const isShort = point.steps < Infinity;
    if (!isShort) point = best(used.grid, used.tables.longRuns(batchSize, target));
    let reach = used.grid[1] - used.grid[0];
    for (let round = 0; round < ROUNDS; round++, reach *= 2 / (POINTS - 1)) {
      const near = spaced(point.coordinate - reach, point.coordinate + reach, POINTS);
      const tables = buildTables(problem, momentum, near.map(rateAt));
      const nearest = best(
        near,
        isShort
          ? tables.shortRuns(batchSize, target, used.longest)
          : tables.longRuns(batchSize, target),
      );
      if (nearest.steps < point.steps) point = nearest;
    }
    yield;
    const known = found.at(-1);
    let lr = rateAt(point.coordinate);
    let steps = point.steps < Infinity ? count(lr, batchSize, 2 * point.steps) : null;
    // At the same rate a larger batch needs no more steps, so neither does it at its best rate.
    if (known && (steps === null || steps > known.steps)) {
      lr = known.lr;
      steps = count(lr, batchSize, known.steps);
    }
    found.push(steps === null ? null : { lr, steps });
    yield;
  }
  return found;
}

function spaced(low, high, count) {
  return Array.from({ length: count }, (_, k) => low + ((high - low) * k) / (count - 1));
}

// Many rates side by side; a lane is a rate and a curvature. With F = [1 - lr h, -lr momentum;
// h, momentum] and b = [-lr, 1], what is left of theta_0 is the first entry of a power of F, and
// the noise in theta the first entry of C_t = sum_{k<t} F^k b (F^k b)^T, which has three entries.
function buildTables(problem, momentum, rates) {
  const { curvature, noise, second_moment, counts } = problem;
  const size = curvature.length;
  const lanes = rates.length * size;
  const startWeights = curvature.map((h, i) => (counts[i] * h * second_moment[i]) / 2);
  const noiseWeights = curvature.map((h, i) => (counts[i] * h * noise[i]) / 2);
  const levels = [firstLevel()];
  const powersOfTwo = [];
  const everyStep = [];
  const walk = {
    u: new Float64Array(lanes).fill(1),
    v: new Float64Array(lanes),
    psi: new Float64Array(lanes),
  };

  function firstLevel() {
    const F = Array.from({ length: 4 }, () => new Float64Array(lanes));
    const C = Array.from({ length: 3 }, () => new Float64Array(lanes));
    rates.forEach((lr, rate) => {
      curvature.forEach((h, i) => {
        const k = rate * size + i;
        [1 - lr * h, -lr * momentum, h, momentum].forEach((value, j) => (F[j][k] = value));
        [lr * lr, -lr, 1].forEach((value, j) => (C[j][k] = value));
      });
    });
    return { F, C };
  }

  // F^(2^j) and C_(2^j), each from the one before.
  function levelAt(level) {
    while (levels.length <= level) {
      const [A, B, G, H] = levels.at(-1).F;
      const [X, Y, Z] = levels.at(-1).C;
      const F = Array.from({ length: 4 }, () => new Float64Array(lanes));
      const C = Array.from({ length: 3 }, () => new Float64Array(lanes));
      for (let k = 0; k < lanes; k++) {
        const [a, b, g, h] = [A[k], B[k], G[k], H[k]];
        const [x, y, z] = [X[k], Y[k], Z[k]];
        F[0][k] = a * a + b * g;
        F[1][k] = b * (a + h);
        F[2][k] = g * (a + h);
        F[3][k] = b * g + h * h;
        const [ax, ay] = [a * x + b * y, a * y + b * z];
        const [gx, gy] = [g * x + h * y, g * y + h * z];
        C[0][k] = x + ax * a + ay * b;
        C[1][k] = y + ax * g + ay * h;
        C[2][k] = z + gx * g + gy * h;
      }
      levels.push({ F, C });
    }
    return levels[level];
  }

  // The risk's two parts for each rate, from what each lane has of the start and of the noise.
  function parts(start, psi) {
    const sums = { decay: new Float64Array(rates.length), noise: new Float64Array(rates.length) };
    for (let rate = 0, k = 0; rate < rates.length; rate++) {
      for (let i = 0; i < size; i++, k++) {
        sums.decay[rate] += startWeights[i] * start[k] * start[k];
        sums.noise[rate] += noiseWeights[i] * psi[k];
      }
    }
    return sums;
  }

  function atPowerOfTwo(level) {
    while (powersOfTwo.length <= level) {
      const { F, C } = levelAt(powersOfTwo.length);
      powersOfTwo.push(parts(F[0], C[0]));
    }
    return powersOfTwo[level];
  }

  // After 1, 2, 3, ... steps; the row (u, v) is that of the power's first entries.
  function atStep(step) {
    const [A, B, G, H] = levels[0].F;
    const { u, v, psi } = walk;
    while (everyStep.length < step) {
      const now = { decay: new Float64Array(rates.length), noise: new Float64Array(rates.length) };
      for (let rate = 0, k = 0; rate < rates.length; rate++) {
        let decay = 0;
        let spread = 0;
        for (let i = 0; i < size; i++, k++) {
          const output = v[k] - u[k] * rates[rate];
          const next = u[k] * A[k] + v[k] * G[k];
          v[k] = u[k] * B[k] + v[k] * H[k];
          u[k] = next;
          psi[k] += output * output;
          decay += startWeights[i] * next * next;
          spread += noiseWeights[i] * psi[k];
        }
        now.decay[rate] = decay;
        now.noise[rate] = spread;
      }
      everyStep.push(now);
    }
    return everyStep[step - 1];
  }

  // A step t with risk(t) <= target < risk(t - 1), below 2^top; not always the first one.
  function bisect(rate, top, batchSize, target) {
    const u = new Float64Array(size).fill(1);
    const v = new Float64Array(size);
    const psi = new Float64Array(size);
    const next = [0, 1, 2].map(() => new Float64Array(size));
    let steps = 0;
    for (let level = top - 1; level >= 0; level--) {
      const [A, B, G, H] = levels[level].F;
      const [X, Y, Z] = levels[level].C;
      let risk = 0;
      for (let i = 0, k = rate * size; i < size; i++, k++) {
        next[0][i] = u[i] * A[k] + v[i] * G[k];
        next[1][i] = u[i] * B[k] + v[i] * H[k];
        next[2][i] = psi[i] + u[i] * u[i] * X[k] + 2 * u[i] * v[i] * Y[k] + v[i] * v[i] * Z[k];
        risk +=
          startWeights[i] * next[0][i] * next[0][i] + (noiseWeights[i] * next[2][i]) / batchSize;
      }
      if (!(risk > target)) continue;
      steps += 2 ** level;
      [u, v, psi].forEach((values, j) => values.set(next[j]));
    }
    return steps + 1;
  }

  const anyBelow = ({ decay, noise }, batchSize, target) => {
    for (let k = 0; k < decay.length; k++) {
      if (decay[k] + noise[k] / batchSize <= target) return true;
    }
    return false;
  };
  const whereBelow = (now, batchSize, target, value) =>
    rates.map((_, rate) => {
      const risk = now.decay[rate] + now.noise[rate] / batchSize;
      return risk <= target ? value(risk, rate) : Infinity;
    });

  // For each rate the first step at which its risk is at or below the target, if no other rate is
  // faster and it is at most `longest`; else Infinity. Ties are broken by the risk there.
  function shortRuns(batchSize, target, longest) {
    for (let step = 1; step <= longest; step++) {
      const now = atStep(step);
      if (!anyBelow(now, batchSize, target)) continue;
      return whereBelow(now, batchSize, target, (risk) => step + risk / target);
    }
    return rates.map(() => Infinity);
  }

  // For each rate a step at which its risk falls to the target; Infinity for rates that need about
  // twice the steps of another, or more.
  function longRuns(batchSize, target) {
    for (let top = 0; top <= MOST_LEVELS; top++) {
      const now = atPowerOfTwo(top);
      if (!anyBelow(now, batchSize, target)) continue;
      const crossing = (_, rate) => bisect(rate, top, batchSize, target);
      return whereBelow(now, batchSize, target, crossing);
    }
    return rates.map(() => Infinity);
  }

  return { shortRuns, longRuns };
}
