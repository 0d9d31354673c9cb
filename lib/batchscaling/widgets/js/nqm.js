// The noisy quadratic model's exact risk: the arithmetic of every explorer.
//
// A method is one linear update, s' = A s + b (h q·s + xi) with var xi = c / B, the state's
// read-out coordinate theta = r·s, and the state's start, in units of theta_0. Along an
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

/** The equivalent problem of gradients multiplied by curvature^(-power). */
export function precondition(problem, power) {
  return {
    curvature: problem.curvature.map((h) => h ** (1 - power)),
    noise: problem.noise.map((c, i) => problem.curvature[i] ** -power * c),
    second_moment: problem.second_moment.map((m, i) => problem.curvature[i] ** power * m),
    counts: problem.counts,
  };
}

/** The learning rate at and above which heavy-ball momentum diverges. */
export function stabilityLimit(problem, momentum) {
  return (2 * (1 + momentum)) / Math.max(...problem.curvature);
}

/**
 * The two parts of the risk at each of `steps`: `decay`, what is left of the start, and `noise`,
 * what the gradients' noise has added at batch size 1. The risk is decay + noise / batchSize.
 */
export function riskParts(problem, method, steps) {
  const decay = new Float64Array(steps.length);
  const noise = new Float64Array(steps.length);
  const longest = steps.reduce((a, b) => Math.max(a, b), 0);
  const order = steps.map((_, k) => k).sort((a, b) => steps[a] - steps[b]);
  problem.curvature.forEach((h, i) => {
    const rungs = buildLadder(method, h, longest);
    const weight = (problem.counts[i] * h) / 2;
    let at = { t: 0, row: double(method.readout), psi: 0 };
    for (const k of order) {
      at = advance(at, rungs, steps[k] - at.t);
      decay[k] += weight * problem.second_moment[i] * dot(method.start, at.row) ** 2;
      noise[k] += weight * problem.noise[i] * at.psi;
    }
  });
  return { decay: decay.map(finite), noise: noise.map(finite) };
}

/** The exact risk at each of `steps`; Infinity where it leaves the range of doubles. */
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
  const d = method.b.length;
  const directions = problem.curvature.map((h, i) => {
    const weight = (problem.counts[i] * h) / 2;
    const rungs = buildLadder(method, h, maxSteps);
    return {
      startWeight: weight * problem.second_moment[i],
      noiseWeight: (weight * problem.noise[i]) / batchSize,
      change: iterationMatrix(
        { ...method, A: method.A.map((a, k) => a - (k % (d + 1) ? 0 : 1)) },
        h,
      ),
      rungs,
      outputs: outputSums(method.readout, rungs),
      row: double(method.readout), // r F^t
      column: double(method.start), // F^t s_0
      psi: 0, // sum_{k<t} (r F^k b)^2
    };
  });
  const add = (term) => directions.reduce((sum, direction) => sum + term(direction), 0);
  const response = ({ column }) => Math.abs(dot(method.readout, column));

  function isSafe(level) {
    const length = 2 ** level;
    const lowest = add((direction) => {
      const change = multiply(direction.change, direction.column, d);
      const squares = quadratic(change, direction.outputs[level], d);
      const least = response(direction) - Math.sqrt((length - 1) * Math.max(squares, 0));
      return (
        direction.startWeight * Math.max(least, 0) ** 2 + direction.noiseWeight * direction.psi
      );
    });
    return lowest > target * (1 + 1e-9); // so that rounding skips no block that touches the target
  }

  const top = directions[0].rungs.length - 1;
  for (let t = 0, level = 0; t <= maxSteps; level = Math.min(level + 1, top)) {
    const noise = add(({ noiseWeight, psi }) => noiseWeight * psi);
    if (noise > target) return null;
    if (noise + add((item) => item.startWeight * response(item) ** 2) <= target) return t;
    while (level > 0 && !isSafe(level)) level -= 1;
    for (const direction of directions) {
      const { P, C } = direction.rungs[level];
      direction.psi += quadratic(direction.row, C, d);
      direction.column = multiply(P, direction.column, d);
      direction.row = multiply(direction.row, P, d);
    }
    t += 2 ** level;
  }
  return null;
}

function finite(value) {
  return Number.isFinite(value) ? value : Infinity;
}

// The rungs of a ladder: P = F^(2^j) and C = sum_{k < 2^j} F^k b (F^k b)^T. Every matrix is one
// array of double-doubles, the high parts row by row and then the low parts.
function buildLadder(method, h, longest) {
  const rungs = [];
  const d = method.b.length;
  let P = iterationMatrix(method, h);
  let C = outer(method.b);
  for (let length = 1; length <= longest; length *= 2) {
    rungs.push({ P, C });
    C = grow(C, P, d);
    P = multiply(P, P, d);
  }
  return rungs;
}

// From t to t + count along the bits of count: the row r F^t, and psi = sum_{k<t} (r F^k b)^2.
function advance({ t, row, psi }, rungs, count) {
  const d = row.length / 2;
  for (let j = 0, rest = count; rest > 0; j++, rest = Math.floor(rest / 2)) {
    if (rest % 2 === 0) continue;
    psi += quadratic(row, rungs[j].C, d);
    row = multiply(row, rungs[j].P, d);
  }
  return { t: t + count, row, psi };
}

// sum_k (r F^k b)^2, by doubling the number of terms until nothing changes.
function steadyStateNoise(method, h) {
  const d = method.b.length;
  const readout = double(method.readout);
  let P = iterationMatrix(method, h);
  let C = outer(method.b);
  for (;;) {
    const next = grow(C, P, d);
    if (next.every((value, k) => value === C[k])) return quadratic(readout, C, d);
    if (!next.every(Number.isFinite)) return Infinity;
    C = next;
    P = multiply(P, P, d);
  }
}

// For each rung, sum_{k < 2^j} (F^k)^T r r^T F^k.
function outputSums(readout, rungs) {
  const d = readout.length;
  let W = outer(readout);
  return rungs.map(({ P }) => {
    const now = W;
    W = grow(W, transpose(P, d), d);
    return now;
  });
}

// F = A + h b q^T, with the rounding of each entry kept.
function iterationMatrix({ A, b, q }, h) {
  const d = b.length;
  const F = new Array(2 * d * d).fill(0);
  for (let i = 0; i < d * d; i++) {
    const gain = b[Math.floor(i / d)] * q[i % d];
    const feedback = h * gain;
    F[i] = A[i] + feedback;
    F[d * d + i] = sumError(A[i], feedback, F[i]) + productError(h, gain, feedback);
  }
  return F;
}

function double(values) {
  return [...values, ...values.map(() => 0)];
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function outer(v) {
  return multiply(double(v), double(v), 1);
}

// v M v^T, for a row v and a symmetric matrix M.
function quadratic(v, M, d) {
  return multiply(multiply(v, M, d), v, d)[0];
}

// C + P C P^T, the step from C_t to C_2t.
function grow(C, P, d) {
  return sum(C, multiply(multiply(P, C, d), transpose(P, d), d));
}

function transpose(P, d) {
  return P.map((_, i) => {
    const entry = i % (d * d);
    return P[i - entry + (entry % d) * d + Math.floor(entry / d)];
  });
}

function sum(X, Y) {
  const low = X.length / 2;
  const Z = new Array(X.length).fill(0);
  for (let i = 0; i < low; i++) {
    const high = X[i] + Y[i];
    const rest = sumError(X[i], Y[i], high) + X[low + i] + Y[low + i];
    Z[i] = high + rest;
    Z[low + i] = rest - (Z[i] - high);
  }
  return Z;
}

// The product of two matrices of double-doubles, n x d and d x m.
function multiply(X, Y, d) {
  const n = X.length / (2 * d);
  const m = Y.length / (2 * d);
  const Z = new Array(2 * n * m).fill(0);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let high = 0;
      let low = 0;
      for (let k = 0; k < d; k++) {
        const x = X[i * d + k];
        const y = Y[k * m + j];
        const product = x * y;
        const sum = high + product;
        low += sumError(high, product, sum) + productError(x, y, product);
        low += x * Y[d * m + k * m + j] + X[n * d + i * d + k] * y;
        high = sum;
      }
      Z[i * m + j] = high + low;
      Z[n * m + i * m + j] = low - (Z[i * m + j] - high);
    }
  }
  return Z;
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
