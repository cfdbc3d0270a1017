// latentOf(seed, dim) -> Float32Array: the latent that `progan generate --seeds` gives a seed, computed alike:
// SHA-256 of "seed/generate/0" seeds a Mersenne twister, whose numbers become normal ones as in torch.randn on a CPU.
// PyTorch rounds its logarithms a little differently, so the numbers agree to about six digits.

export function latentOf(seed, dim) {
  const hash = sha256(`${seed}/generate/0`);
  // PyTorch's twister takes the low 32 bits of the seed.
  const twister = mersenneTwister(hash[0] | (hash[1] << 8) | (hash[2] << 16) | (hash[3] << 24));
  return dim < 16 ? fewNormals(twister, dim) : normals(twister, dim);
}

// Blocks of 16: eight radii and eight angles make eight pairs. What is left over is the last 16, drawn anew.
function normals(twister, count) {
  const z = new Float32Array(count);
  for (let i = 0; i < count; i++) z[i] = (twister() & 0xffffff) / 0x1000000;
  for (let start = 0; start + 16 <= count; start += 16) pairs(z, start);
  if (count % 16) {
    for (let i = count - 16; i < count; i++) z[i] = (twister() & 0xffffff) / 0x1000000;
    pairs(z, count - 16);
  }
  return z;
}

function pairs(z, start) {
  for (let i = start; i < start + 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - z[i]));
    const angle = 2 * Math.PI * z[i + 8];
    z[i] = radius * Math.cos(angle);
    z[i + 8] = radius * Math.sin(angle);
  }
}

// Fewer than 16 are drawn in pairs, each from two numbers of 53 bits.
function fewNormals(twister, count) {
  const uniform = () => {
    const high = twister();
    return ((high & 0x1fffff) * 0x100000000 + twister()) / 2 ** 53;
  };
  const z = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const angle = 2 * Math.PI * uniform();
    const radius = Math.sqrt(-2 * Math.log1p(-uniform()));
    z[i] = radius * Math.cos(angle);
    if (i + 1 < count) z[i + 1] = radius * Math.sin(angle);
  }
  return z;
}

// MT19937 (Matsumoto and Nishimura, 1998): each call gives an unsigned number of 32 bits.
export function mersenneTwister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) {
    const before = state[i - 1] ^ (state[i - 1] >>> 30);
    state[i] = Math.imul(before, 1812433253) + i;
  }
  let at = 624;
  return () => {
    if (at === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

// SHA-256 (FIPS 180-4) of a short ASCII text. The browser's own is not to be had in every page opened from a disk.
export function sha256(text) {
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const fraction = (x) => Math.floor((x - Math.floor(x)) * 0x100000000);
  const constants = primes.map((p) => fraction(Math.cbrt(p)));
  const hash = Uint32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));
  const blocks = new Uint8Array(64 * Math.ceil((text.length + 9) / 64));
  blocks.set(Array.from(text, (letter) => letter.charCodeAt(0)));
  blocks[text.length] = 0x80;
  const view = new DataView(blocks.buffer);
  view.setUint32(blocks.length - 4, 8 * text.length);
  const turn = (x, by) => (x >>> by) | (x << (32 - by));
  const w = new Uint32Array(64);
  for (let start = 0; start < blocks.length; start += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getUint32(start + 4 * i);
    for (let i = 16; i < 64; i++) {
      const s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >>> 3);
      const s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = hash;
    for (let i = 0; i < 64; i++) {
      const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + constants[i] + w[i]) | 0;
      const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [a, b, c, d, e, f, g, h] = [(t1 + t2) | 0, a, b, c, (d + t1) | 0, e, f, g];
    }
    [a, b, c, d, e, f, g, h].forEach((x, i) => (hash[i] += x));
  }
  const bytes = new DataView(new ArrayBuffer(32));
  hash.forEach((x, i) => bytes.setUint32(4 * i, x));
  return new Uint8Array(bytes.buffer);
}
