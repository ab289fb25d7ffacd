// A pass over the rows of a matrix in C order that reads it once: t = A x for R rows at a time, multipliers made of the margins t,
// and g += A' t while the rows are still in registers.
//
// A team of threads owns R rows, a thread the same columns of all of them, which it loads at once: for one vector 256 bytes, so
// that 16 warps have 128 KB of A on their way where 20 KB hide the latency of an H200. Over a team R K sums are added for every R
// rows, which is why R is large; every margin is then worked on by one thread, because a loss costs more than a row. Rows of at
// most 256 numbers have teams of a warp or less, which wait for nobody; teams of several warps wait twice for every R rows.
//
// Bytes: A once, vectors of length m once; x and the sums of A' t stay in shared memory and registers. For float32 and one vector
// on an H200, of which a multiprocessor gets 4.1 numbers in a clock: 6 of the 31 instructions that there is time for, conversions
// to float64 for half of the time of their unit, loads and exchanges for a fifth of theirs. Eight vectors of float64 sums are as
// many products as the units for float64 can do while float32 rows are read.
//
// Columns = 0 is for rows too long for registers and for any strides: they are read again for A' t, as far as possible from the
// caches, and the sums of A' t lie where partial results go.
//
// Rows are cut into blocks by the shape alone, and partial sums added in their order: the same bits on every device.
#pragma once

#include "cuda/margins.h"
#include "cuda/rows.h"

namespace randla::cuda {

// Whether a kernel knows the rules that are joint: beside them its sums must still fit into the registers.
template <class V, int Columns, int K>
constexpr bool joint_rules() { return sizeof(V) == 8 && (K == 4 || (K == 8 && Columns == 4)); }

template <class T, class V, int Team, int Columns, int R, int K, bool Nonlinear = false>
struct RowPass {
  static constexpr int kThreads = Team >= 128 ? Team : Nonlinear ? 128 : 256, kTeam = Team;
  static constexpr int kPhases = joint_rules<V, Columns, K>() ? 4 : 3, kOpening = 1, kClosing = 2;
  // Registers for 16 warps where that is enough of them, 12 beside a loss.
  static constexpr int kBlocks = K == 8 || (K == 4 && (Columns == 0 || Team == 8)) || kThreads > 256 ? 1
                                 : Nonlinear && kThreads < 256                                       ? 384 / kThreads
                                                                                                     : 512 / kThreads;
  static constexpr int N = R * K, M = N > Team ? N / Team : 1;  // sums of a team, of a thread
  static constexpr bool kKeep = Columns > 0;                    // rows in registers
  static constexpr int L = kPack<T>, P = kKeep ? Columns / L : 1;  // numbers of a pack, packs of a row that a thread owns
  static constexpr int X = kPack<V>;
  static constexpr int kTeams = kThreads / Team, kWidth = kKeep ? Team * Columns : 1;
  static constexpr int dealt(int phase) { return phase == 0 ? N : 0; }
  // The last phase reads multipliers and rows: the next step writes multipliers after it has waited to deal, rows in turns.
  static constexpr bool free(int phase) { return phase == kPhases - 1; }
  static_assert(Columns % (L > X ? L : X) == 0 && (N & (N - 1)) == 0 && R <= Team, "rows in whole packs, sums a power of two");

  struct State {
    T a[R][P][L];
    V g[K][P][L], sum[N];
    typename Margins<V>::Given given[M];
    int64_t next[M];
  };

  Matrix<const T> A;
  RowChoice rows;
  Margins<V> m;
  const V* x;
  bool want_g, packed;
  int64_t per_block;  // rows
  double* partial;    // (blocks, k n + k)

  static constexpr std::size_t shared_bytes() { return sizeof(Shared); }

  struct Shared {
    union {
      V x[K * kWidth];                // in the order of `place`
      V g[kTeams * K * kWidth];       // of every team, once all rows are done
    };
    V t[kTeams][N];
    double total[kTeams][N];  // not in registers, of which there are few
    int64_t row[2][kTeams][R];  // of even and of odd steps
  };
  static RANDLA_HD Shared& shared(const Lane& lane) { return *reinterpret_cast<Shared*>(lane.shared); }

  // Threads read neighbouring packs of a row; where packs are not aligned, neighbouring numbers.
  RANDLA_HD int64_t column(int thread, int v, int e) const {
    return packed ? (v * Team + thread) * L + e : (v * L + e) * Team + thread;
  }
  // Neighbouring threads read neighbouring 16 bytes of x.
  static RANDLA_HD int place(int thread, int v, int e) { return ((v * L + e) / X * Team + thread) * X + (v * L + e) % X; }

  RANDLA_HD int64_t steps(const Lane& lane) const {
    const int64_t left = rows.count - lane.x * per_block;
    return divided_up(left < per_block ? left : per_block, kTeams * R);
  }
  RANDLA_HD int64_t first_row(const Lane& lane, int64_t step) const {
    return lane.x * per_block + (step * kTeams + lane.thread / Team) * R;
  }
  RANDLA_HD int64_t end(const Lane& lane) const {
    const int64_t last = (lane.x + 1) * per_block;
    return last < rows.count ? last : rows.count;
  }

  template <int>
  RANDLA_HD void open(const Lane& lane, State& state) const {
    const int thread = lane.thread % Team;
    if (kKeep && x)
      for (int c = lane.thread; c < K * kWidth; c += kThreads) {
        const int q = c / kWidth, owner = c % kWidth / (P * L), own = c % (P * L);
        const int64_t j = column(owner, own / L, own % L);
        shared(lane).x[q * kWidth + place(owner, own / L, own % L)] = q < m.k && j < A.cols ? x[q * A.cols + j] : V(0);
      }
    if (rows.rows)
      for (int r = thread; r < R; r += Team) {
        const int64_t i = first_row(lane, 0) + r;
        shared(lane).row[0][lane.thread / Team][r] = i < end(lane) ? rows.rows[i] : 0;
      }
#pragma unroll
    for (int q = 0; q < K; ++q)
#pragma unroll
      for (int v = 0; v < P; ++v)
#pragma unroll
        for (int e = 0; e < L; ++e) state.g[q][v][e] = 0;
    for (int n = thread; n < N; n += Team) shared(lane).total[lane.thread / Team][n] = 0;
  }

  template <int Phase>
  RANDLA_HD void phase(const Lane& lane, State& state, Step step) const {
    if constexpr (Phase == 0) {
      if constexpr (kKeep) load(lane, state, step);
      if constexpr (K < 8) ask(lane, state, step);
#pragma unroll
      for (int s = 0; s < N; ++s) state.sum[s] = 0;
      if (x) {
        if constexpr (kKeep)
          dot(lane, state);
        else
          dot_where_they_lie(lane, state, step);
      }
      if constexpr (K == 8) ask(lane, state, step);  // later, because registers are scarce
    } else if constexpr (Phase == 1) {
      multiply(lane, state, step);
    } else if constexpr (Phase == kPhases - 1) {
      if (!want_g) return;
      if constexpr (kKeep)
        add(lane, state);
      else
        add_where_they_lie(lane, step);
    } else if (m.joint()) {
      multiply_jointly(lane, step);
    }
  }

  RANDLA_HD int64_t row(const Lane& lane, Step step, int r) const {
    return rows.rows ? shared(lane).row[step.index & 1][lane.thread / Team][r] : first_row(lane, step.index) + r;
  }

  RANDLA_HD void load(const Lane& lane, State& state, Step step) const {
    const int thread = lane.thread % Team;
    const int64_t i0 = first_row(lane, step.index), left = end(lane) - i0;
    const int n = static_cast<int>(A.cols);
    const T* from[R];
#pragma unroll
    for (int r = 0; r < R; ++r) from[r] = A.data + row(lane, step, r) * A.row_stride + (packed ? thread * L : thread);
    if (packed) {
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int v = 0; v < P; ++v)
          if (r < left && (v * Team + thread) * L < n)
            load_pack(from[r] + v * Team * L, state.a[r][v]);
          else
            zero_pack(state.a[r][v]);
    } else {
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int v = 0; v < P; ++v)
#pragma unroll
          for (int e = 0; e < L; ++e)
            state.a[r][v][e] = r < left && (v * L + e) * Team + thread < n ? load_once(from[r] + (v * L + e) * Team) : T(0);
    }
  }

  // Sum s of a thread belongs to row `own(s) % R` and vector `own(s) / R`: neighbours have neighbouring rows.
  static RANDLA_HD int own(const Lane& lane, int s) { return lane.thread % Team + s * Team; }

  RANDLA_HD bool owns(const Lane& lane, int s, Step step) const {
    const int n = own(lane, s);
    return n < N && n / R < m.k && first_row(lane, step.index) + n % R < end(lane);
  }

  // What the margins will need of memory, and where the rows of the next step are.
  RANDLA_HD void ask(const Lane& lane, State& state, Step step) const {
#pragma unroll
    for (int s = 0; s < M; ++s) {
      const int n = own(lane, s);
      state.given[s] = {V(0), V(0)};
      if (owns(lane, s, step)) state.given[s] = m.about(n / R, first_row(lane, step.index) + n % R);
      const int64_t next = first_row(lane, step.index + 1) + n % R;
      state.next[s] = rows.rows && n < R && next < end(lane) ? rows.rows[next] : 0;
    }
  }

  RANDLA_HD void dot(const Lane& lane, State& state) const {
    const V* const from = shared(lane).x + place(lane.thread % Team, 0, 0);
#pragma unroll
    for (int c = 0; c < Columns; c += X)
#pragma unroll
      for (int q = 0; q < K; ++q) {
        V xs[X];
        load_shared(from + q * kWidth + c * Team, xs);
#pragma unroll
        for (int e = 0; e < X; ++e)
#pragma unroll
          for (int r = 0; r < R; ++r)
            state.sum[q * R + r] = fused(V(state.a[r][(c + e) / L][(c + e) % L]), xs[e], state.sum[q * R + r]);
      }
  }

  RANDLA_HD void multiply(const Lane& lane, State& state, Step step) const {
    const int team = lane.thread / Team;
#pragma unroll
    for (int s = 0; s < M; ++s) {
      const int n = own(lane, s);
      if (n >= N) continue;
      V t = 0;
      if (owns(lane, s, step))
        t = m.template multiplier<Nonlinear>(n / R, first_row(lane, step.index) + n % R, dealt_sum<RowPass>(lane, n),
                                             state.given[s], &shared(lane).total[team][n]);
      shared(lane).t[team][n] = t;
      if (rows.rows && n < R) shared(lane).row[(step.index + 1) & 1][team][n] = state.next[s];
    }
  }

  RANDLA_HD void multiply_jointly(const Lane& lane, Step step) const {
    for (int r = lane.thread % Team; r < R; r += Team) {
      const int64_t i = first_row(lane, step.index) + r;
      if (i >= end(lane)) continue;
      const V y = m.labels() ? m.given[i] : V(0), w = m.weights ? m.weights[i] : V(1);
      m.all_multipliers(i, shared(lane).t[lane.thread / Team] + r, R, y, w,
                        &shared(lane).total[lane.thread / Team][r]);
    }
  }

  RANDLA_HD void add(const Lane& lane, State& state) const {
    const V* const t = shared(lane).t[lane.thread / Team];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int q = 0; q < K; ++q) {
        const V factor = t[q * R + r];
#pragma unroll
        for (int v = 0; v < P; ++v)
#pragma unroll
          for (int e = 0; e < L; ++e) state.g[q][v][e] = fused(V(state.a[r][v][e]), factor, state.g[q][v][e]);
      }
  }

  static constexpr int kAtOnce = K == 8 ? 2 : 4;  // numbers of a row

  RANDLA_HD void dot_where_they_lie(const Lane& lane, State& state, Step step) const {
    const int64_t i0 = first_row(lane, step.index), left = end(lane) - i0;
    for (int64_t j0 = lane.thread % Team; j0 < A.cols; j0 += Team * kAtOnce) {
      T a[kAtOnce][R];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const T* const from = A.data + row(lane, step, r) * A.row_stride;
#pragma unroll
        for (int u = 0; u < kAtOnce; ++u)
          a[u][r] = r < left && j0 + u * Team < A.cols ? from[(j0 + u * Team) * A.col_stride] : T(0);
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u)
#pragma unroll
        for (int q = 0; q < K; ++q) {
          const V xj = q < m.k && j0 + u * Team < A.cols ? x[q * A.cols + j0 + u * Team] : V(0);
#pragma unroll
          for (int r = 0; r < R; ++r) state.sum[q * R + r] = fused(V(a[u][r]), xj, state.sum[q * R + r]);
        }
    }
  }

  RANDLA_HD void add_where_they_lie(const Lane& lane, Step step) const {
    const V* const t = shared(lane).t[lane.thread / Team];
    double* const to = partial + lane.x * m.k * (A.cols + 1);
    const int64_t i0 = first_row(lane, step.index), left = end(lane) - i0;
#pragma unroll 2
    for (int64_t j = lane.thread % Team; j < A.cols; j += Team) {
      T a[R];
#pragma unroll
      for (int r = 0; r < R; ++r) a[r] = r < left ? A.data[row(lane, step, r) * A.row_stride + j * A.col_stride] : T(0);
#pragma unroll
      for (int q = 0; q < K; ++q) {
        if (q >= m.k) continue;
        V sum = 0;
#pragma unroll
        for (int r = 0; r < R; ++r) sum = fused(V(a[r]), t[q * R + r], sum);
        double& g = to[q * A.cols + j];
        g = step.index == 0 ? static_cast<double>(sum) : g + static_cast<double>(sum);
      }
    }
  }

  template <int Part>
  RANDLA_HD void close(const Lane& lane, State& state) const {
    const int team = lane.thread / Team;
    double* const to = partial + lane.x * m.k * (A.cols + 1);
    if constexpr (Part == 0) {
      if constexpr (!kKeep) return;
      if (!want_g) return;
#pragma unroll
      for (int q = 0; q < K; ++q)
#pragma unroll
        for (int v = 0; v < P; ++v)
#pragma unroll
          for (int e = 0; e < L; ++e) {
            const int64_t j = column(lane.thread % Team, v, e);
            if (kTeams > 1)
              shared(lane).g[(team * K + q) * kWidth + j] = state.g[q][v][e];
            else if (q < m.k && j < A.cols)
              to[q * A.cols + j] = static_cast<double>(state.g[q][v][e]);
          }
    } else {
      if (kKeep && kTeams > 1 && want_g)
        for (int64_t c = lane.thread; c < m.k * A.cols; c += kThreads) {
          const V* const from = shared(lane).g + c / A.cols * kWidth + c % A.cols;
          double sum = static_cast<double>(from[0]);
          for (int k = 1; k < kTeams; ++k) sum += static_cast<double>(from[k * K * kWidth]);
          to[c] = sum;
        }
      if (lane.thread < m.k) {
        double sum = 0;
        for (int k = 0; k < kTeams; ++k)
          for (int r = 0; r < R; ++r) sum += shared(lane).total[k][lane.thread * R + r];
        to[m.k * A.cols + lane.thread] = sum;
      }
    }
  }
};

}  // namespace randla::cuda
