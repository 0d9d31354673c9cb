// The noisy quadratic model's exact risk: the arithmetic of every explorer.
//
// A method is one linear update of two numbers, s' = A s + b (h q·s + xi) with var xi = c / B, the
// state's read-out coordinate theta = r·s, and the state's start, in units of theta_0. Along an
// eigenvalue h of multiplicity n, with noise c and second moment m = E[theta_0^2],
//
//   risk(t) = n h/2 [ m (r F^t s_0)^2 + (c/B) sum_{k<t} (r F^k b)^2 ],   F = A + h b q^T.
//
// Both come from repeated squaring, in double-double arithmetic: the t-th power of F multiplies a
// rounding error in F by t, and near the limit of stability terms of the sum cancel.
//
// A problem is {curvature, noise, second_moment, counts}, four arrays of the same length.

/** Heavy-ball momentum, v' = momentum v + g, theta' = theta - lr v'; SGD is momentum = 0. */
export function heavyBall(lr, momentum) {
  return {
    A: [1, -lr * momentum, 0, momentum],
    b: [-lr, 1],
    q: [1, 0],
    readout: [1, 0],
    start: [1, 0],
  };
}

/** The problem with curvature i^(-exponent) for i = 1..dim, noise c = h and a start of size 1. */
export function powerLaw(dim, exponent) {
  const curvature = Array.from({ length: dim }, (_, i) => (i + 1) ** -exponent);
  const ones = curvature.map(() => 1);
  return { curvature, noise: curvature, second_moment: ones, counts: ones };
}

/**
 * The problem with close eigenvalues grouped into at most `bins` bins, geometric in curvature. A
 * bin keeps its members' number, mean curvature, mean noise and total initial risk.
 */
export function quantize({ curvature, noise, second_moment, counts }, bins) {
  const lowest = Math.min(...curvature);
  const octaves = curvature.map((h) => Math.log(h / lowest));
  const width = Math.max(...octaves) / bins || 1;
  const groups = Array.from({ length: bins }, () => ({ n: 0, h: 0, c: 0, start: 0 }));
  curvature.forEach((h, i) => {
    // The small shift keeps a value on an edge in the same bin on every machine.
    const group = groups[Math.min(Math.floor(octaves[i] / width + 1e-9), bins - 1)];
    group.n += counts[i];
    group.h += counts[i] * h;
    group.c += counts[i] * noise[i];
    group.start += counts[i] * h * second_moment[i];
  });
  const filled = groups.filter(({ n }) => n > 0).reverse();
  return {
    curvature: filled.map(({ h, n }) => h / n),
    noise: filled.map(({ c, n }) => c / n),
    second_moment: filled.map(({ start, h }) => start / h),
    counts: filled.map(({ n }) => n),
  };
}

/** The equivalent problem of gradients multiplied by curvature^(-power). */
export function precondition(problem, power) {
  return {
    curvature: problem.curvature.map((h) => h ** (1 - power)),
    noise: problem.noise.map((c, i) => problem.curvature[i] ** -power * c),
    second_moment: problem.second_moment.map((m, i) => problem.curvature[i] ** power * m),
    counts: problem.counts,
  };
}

/** The problem of those directions whose curvature passes `test`. */
export function select(problem, test) {
  const keep = (_, i) => test(problem.curvature[i]);
  return Object.fromEntries(
    Object.entries(problem).map(([name, values]) => [name, values.filter(keep)]),
  );
}

/** The number of directions, each counted as often as it occurs. */
export function dimension({ counts }) {
  return counts.reduce((sum, n) => sum + n, 0);
}

/** The risk before the first step. */
export function initialRisk({ curvature, second_moment, counts }) {
  return curvature.reduce((sum, h, i) => sum + (counts[i] * h * second_moment[i]) / 2, 0);
}

/** The learning rate at and above which heavy-ball momentum diverges. */
export function stabilityLimit(problem, momentum) {
  return (2 * (1 + momentum)) / Math.max(...problem.curvature);
}

/**
 * The roots of r^2 - (1 - x + momentum) r + momentum = 0 with x = lr h, as [real, imaginary]: the
 * eigenvalues of heavy-ball momentum along the curvature h. The one of larger modulus is first;
 * complex ones are over-damped's opposite, under-damped, and have the modulus sqrt(momentum).
 */
export function roots(x, momentum) {
  const sum = 1 - x + momentum;
  const root = Math.sqrt(momentum);
  const discriminant = ((1 - root) ** 2 - x) * ((1 + root) ** 2 - x); // of sum^2 - 4 momentum
  const gap = Math.sqrt(Math.abs(discriminant)) / 2;
  if (discriminant < 0) {
    return [
      [sum / 2, gap],
      [sum / 2, -gap],
    ];
  }
  const larger = sum / 2 + (sum < 0 ? -gap : gap);
  return [
    [larger, 0],
    [larger === 0 ? 0 : momentum / larger, 0],
  ];
}

/** The factor by which the slowest direction shrinks in one step, in the long run. */
export function convergenceRate(problem, lr, momentum) {
  return Math.max(...problem.curvature.map((h) => Math.hypot(...roots(lr * h, momentum)[0])));
}

/** In how many steps the slowest direction shrinks by the factor e; infinite where it does not. */
export function foldingSteps(problem, lr, momentum) {
  const slowest = Math.max(...problem.curvature.map((h) => logModulus(lr * h, momentum)));
  return slowest < 0 ? -1 / slowest : Infinity;
}

// The logarithm of the larger modulus of the two roots, also where the modulus rounds to 1.
function logModulus(x, momentum) {
  const [[real, imaginary], [other]] = roots(x, momentum);
  if (imaginary !== 0) return Math.log(momentum) / 2;
  if (real < 0) return Math.log(-real);
  const gap = Math.max(real - other, 0);
  return Math.log1p((-2 * x) / (1 - momentum + x + gap)); // the root is 1 minus the fraction
}

/** The first 16 steps, then 16 in each octave up to `last`: 0, 1, ..., 32, 34, ..., 64, 68, ... */
export function stepGrid(last) {
  const steps = [0];
  for (let t = 1; t < last; t += 2 ** Math.max(0, Math.floor(Math.log2(t)) - 4)) steps.push(t);
  return [...steps, last];
}

/**
 * The two parts of the risk at each of `steps`, which rise: `decay`, what is left of the start,
 * and `noise`, what the gradients' noise has added at batch size 1. The risk is
 * decay + noise / batchSize.
 *
 * Momentum can swing many times from one of the steps to the next. `mean` is the mean of the decay
 * at some steps from each to before the next; where it swings between, `low` and `high` are the
 * lowest and highest of these, elsewhere they are the mean.
 */
export function riskParts(problem, method, steps) {
  const count = steps.length;
  const between = steps.map((t, k) => offsets((steps[k + 1] ?? t + 1) - t));
  const decays = between.map((list) => new Float64Array(list.length));
  const noise = new Float64Array(count);
  problem.curvature.forEach((h, i) => {
    const rungs = buildLadder(method, h, steps[count - 1]);
    const weight = (problem.counts[i] * h) / 2;
    const startWeight = weight * problem.second_moment[i];
    const columns = new Map();
    let at = { t: 0, row: double(method.readout), psi: 0 };
    for (let k = 0; k < count; k++) {
      at = advance(at, rungs, steps[k] - at.t);
      noise[k] += weight * problem.noise[i] * at.psi;
      if (!columns.has(between[k])) columns.set(between[k], starts(method, rungs, between[k]));
      const column = columns.get(between[k]);
      for (let j = 0; j < column.length; j += 2) {
        const response = at.row[0] * column[j] + at.row[1] * column[j + 1];
        decays[k][j / 2] += startWeight * response * response;
      }
    }
  });
  const decay = decays.map((values) => finite(values[0]));
  const swings = decays.map((values, k) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const mean = finite(values.reduce((sum, value) => sum + value, 0) / values.length);
    const ends = [decay[k], decay[k + 1] ?? decay[k]];
    const still = low > 0.98 * Math.min(...ends) && high < 1.02 * Math.max(...ends);
    return still || mean === Infinity ? { low: mean, mean, high: mean } : { low, mean, high };
  });
  return {
    decay,
    noise: Array.from(noise, finite),
    low: swings.map(({ low }) => low),
    mean: swings.map(({ mean }) => mean),
    high: swings.map(({ high }) => high),
  };
}

/** The exact risk at each of `steps`, which rise; Infinity where it leaves the range of doubles. */
export function risk(problem, method, batchSize, steps) {
  const { decay, noise } = riskParts(problem, method, steps);
  return decay.map((value, k) => value + noise[k] / batchSize);
}

/** The risk after infinitely many steps, its floor; Infinity for an unstable method. */
export function steadyStateRisk(problem, method, batchSize) {
  let total = 0;
  problem.curvature.forEach((h, i) => {
    const weight = (problem.counts[i] * h * problem.noise[i]) / 2;
    total += weight * steadyStateNoise(method, h);
  });
  return finite(total) / batchSize;
}

/**
 * The first t in 0..maxSteps with risk(t) <= target, or null.
 *
 * The risk oscillates, so bisection over t is wrong. The search goes forward in blocks and skips
 * a block of L steps only where the risk stays above the target in it: the noise part never
 * falls, and by Cauchy and Schwarz the response phi_t = r F^t s_0 keeps
 * |phi_{t+j}| >= |phi_t| - sqrt((L-1) sum_{i<L} (phi_{t+i+1} - phi_{t+i})^2) for j < L.
 */
export function stepsToTarget(problem, method, batchSize, target, maxSteps) {
  const directions = problem.curvature.map((h, i) => {
    const weight = (problem.counts[i] * h) / 2;
    const rungs = buildLadder(method, h, maxSteps);
    return {
      startWeight: weight * problem.second_moment[i],
      noiseWeight: (weight * problem.noise[i]) / batchSize,
      change: iterationMatrix({ ...method, A: method.A.map((a, k) => a - (k % 3 ? 0 : 1)) }, h),
      rungs,
      outputs: outputSums(method.readout, rungs),
      row: double(method.readout), // r F^t
      column: double(method.start), // F^t s_0
      psi: 0, // sum_{k<t} (r F^k b)^2
    };
  });
  const [first, second] = method.readout;
  const response = ({ column }) => Math.abs(first * column[0] + second * column[1]);

  function isSafe(level) {
    const length = 2 ** level;
    let lowest = 0;
    for (const direction of directions) {
      const { change, column } = direction;
      const u = change[0] * column[0] + change[1] * column[1]; // the state's next change
      const v = change[2] * column[0] + change[3] * column[1];
      const W = direction.outputs[level];
      const squares = W[0] * u * u + (W[1] + W[2]) * u * v + W[3] * v * v;
      const least = response(direction) - Math.sqrt((length - 1) * Math.max(squares, 0));
      lowest +=
        direction.startWeight * Math.max(least, 0) ** 2 + direction.noiseWeight * direction.psi;
    }
    return lowest > target * (1 + 1e-9); // so that rounding skips no block that touches the target
  }

  const top = directions[0].rungs.length - 1;
  for (let t = 0, level = 0; t <= maxSteps; level = Math.min(level + 1, top)) {
    let noise = 0;
    let decay = 0;
    for (const direction of directions) {
      noise += direction.noiseWeight * direction.psi;
      decay += direction.startWeight * response(direction) ** 2;
    }
    if (noise > target) return null;
    if (noise + decay <= target) return t;
    while (level > 0 && !isSafe(level)) level -= 1;
    for (const direction of directions) {
      const { P, C } = direction.rungs[level];
      direction.psi += quadratic(direction.row, C);
      direction.column = matrixTimes(P, direction.column);
      direction.row = timesMatrix(direction.row, P);
    }
    t += 2 ** level;
  }
  return null;
}

function finite(value) {
  return Number.isFinite(value) ? value : Infinity;
}

// Numbers of steps from 0 to below `length`, up to 16 of them, spread without a common period.
const GOLDEN = (Math.sqrt(5) - 1) / 2;
const SPREAD = new Map();
function offsets(length) {
  if (!SPREAD.has(length)) {
    const count = Math.min(length, 16);
    const spread = (j) => (length <= 16 ? j : Math.floor(length * ((j * GOLDEN) % 1)));
    SPREAD.set(
      length,
      Array.from({ length: count }, (_, j) => spread(j)),
    );
  }
  return SPREAD.get(length);
}

// F^t s_0 at each of `steps`, one after the other, in plain doubles.
function starts({ start }, rungs, steps) {
  const columns = new Float64Array(2 * steps.length);
  steps.forEach((t, j) => {
    let [u, v] = start;
    for (let level = 0, rest = t; rest > 0; level++, rest = Math.floor(rest / 2)) {
      if (rest % 2 === 0) continue;
      const { P } = rungs[level];
      const next = P[0] * u + P[1] * v;
      v = P[2] * u + P[3] * v;
      u = next;
    }
    columns[2 * j] = u;
    columns[2 * j + 1] = v;
  });
  return columns;
}

// The rungs of a ladder: P = F^(2^j) and C = sum_{k < 2^j} F^k b (F^k b)^T. Every matrix is one
// array of double-doubles, the four high parts row by row and then the low parts; a vector is two
// high parts and two low ones.
function buildLadder(method, h, longest) {
  const rungs = [];
  let P = iterationMatrix(method, h);
  let C = outer(method.b);
  for (let length = 1; length <= longest; length *= 2) {
    rungs.push({ P, C });
    C = grow(C, P);
    P = multiply(P, P);
  }
  return rungs;
}

// From t to t + count along the bits of count: the row r F^t, and psi = sum_{k<t} (r F^k b)^2.
function advance({ t, row, psi }, rungs, count) {
  for (let j = 0, rest = count; rest > 0; j++, rest = Math.floor(rest / 2)) {
    if (rest % 2 === 0) continue;
    psi += quadratic(row, rungs[j].C);
    row = timesMatrix(row, rungs[j].P);
  }
  return { t: t + count, row, psi };
}

// sum_k (r F^k b)^2, by doubling the number of terms until nothing changes.
function steadyStateNoise(method, h) {
  let P = iterationMatrix(method, h);
  let C = outer(method.b);
  for (;;) {
    const next = grow(C, P);
    if (next.every((value, k) => value === C[k])) return quadratic(double(method.readout), C);
    if (!next.every(Number.isFinite)) return Infinity;
    C = next;
    P = multiply(P, P);
  }
}

// For each rung, sum_{k < 2^j} (F^k)^T r r^T F^k.
function outputSums(readout, rungs) {
  let W = outer(readout);
  return rungs.map(({ P }) => {
    const now = W;
    W = grow(W, transpose(P));
    return now;
  });
}

// F = A + h b q^T, with the rounding of each entry kept.
function iterationMatrix({ A, b, q }, h) {
  const F = new Float64Array(8);
  for (let i = 0; i < 4; i++) {
    const gain = b[i >> 1] * q[i & 1];
    const feedback = h * gain;
    F[i] = A[i] + feedback;
    F[4 + i] = sumError(A[i], feedback, F[i]) + productError(h, gain, feedback);
  }
  return F;
}

function double([u, v]) {
  return Float64Array.of(u, v, 0, 0);
}

// v v^T
function outer([u, v]) {
  const products = [
    [u, u],
    [u, v],
    [v, u],
    [v, v],
  ];
  const errors = products.map(([x, y]) => productError(x, y, x * y));
  return Float64Array.of(...products.map(([x, y]) => x * y), ...errors);
}

// v M v^T, for a row v and a symmetric matrix M.
function quadratic(v, M) {
  const w = timesMatrix(v, M);
  return twoProducts(w[0], w[2], v[0], v[2], w[1], w[3], v[1], v[3]);
}

// C + P C P^T, the step from C_t to C_2t.
function grow(C, P) {
  const grown = multiply(multiply(P, C), transpose(P));
  for (let i = 0; i < 4; i++) {
    const high = C[i] + grown[i];
    const rest = sumError(C[i], grown[i], high) + C[4 + i] + grown[4 + i];
    grown[i] = high + rest;
    grown[4 + i] = rest - (grown[i] - high);
  }
  return grown;
}

function transpose(P) {
  return Float64Array.of(P[0], P[2], P[1], P[3], P[4], P[6], P[5], P[7]);
}

function multiply(X, Y) {
  const Z = new Float64Array(8);
  for (let i = 0; i < 4; i++) {
    const x = i & 2; // where the row of X starts
    const y = i & 1; // and the column of Y
    Z[i] = twoProducts(X[x], X[4 + x], Y[y], Y[4 + y], X[x + 1], X[5 + x], Y[y + 2], Y[6 + y]);
    Z[4 + i] = low;
  }
  return Z;
}

function timesMatrix(v, P) {
  const w = new Float64Array(4);
  for (let i = 0; i < 2; i++) {
    w[i] = twoProducts(v[0], v[2], P[i], P[4 + i], v[1], v[3], P[2 + i], P[6 + i]);
    w[2 + i] = low;
  }
  return w;
}

function matrixTimes(P, v) {
  const w = new Float64Array(4);
  for (let i = 0; i < 2; i++) {
    w[i] = twoProducts(P[2 * i], P[2 * i + 4], v[0], v[2], P[2 * i + 1], P[2 * i + 5], v[1], v[3]);
    w[2 + i] = low;
  }
  return w;
}

// a b + c d for double-doubles, each given as its two parts. It returns the high part and leaves
// the low part in `low`: an array for each result would cost most of the time.
let low = 0;
function twoProducts(a, aLow, b, bLow, c, cLow, d, dLow) {
  const ab = a * b;
  const cd = c * d;
  const high = ab + cd;
  const errors = sumError(ab, cd, high) + productError(a, b, ab) + productError(c, d, cd);
  const rest = errors + (a * bLow + aLow * b) + (c * dLow + cLow * d);
  const result = high + rest;
  low = rest - (result - high);
  return result;
}

// a + b - sum, exactly (Knuth).
function sumError(a, b, sum) {
  const shadow = sum - a;
  return a - (sum - shadow) + (b - shadow);
}

// a * b - product, exactly (Dekker).
function productError(a, b, product) {
  const aHigh = upperHalf(a);
  const bHigh = upperHalf(b);
  const aLow = a - aHigh;
  const bLow = b - bHigh;
  return aHigh * bHigh - product + aHigh * bLow + aLow * bHigh + aLow * bLow;
}

function upperHalf(a) {
  const scaled = 134217729 * a; // 2^27 + 1
  return scaled - (scaled - a);
}
