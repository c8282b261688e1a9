// The thread team, sampling, and steps and programs that must be refused.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <thread>

#include "../runtime/cores.h"
#include "../runtime/failure.h"
#include "../runtime/sampling.h"
#include "../runtime/work_shares.h"
#include "test.h"

namespace mill::test {
namespace {

TEST("thread team: every member runs, and barriers order what they write") {
  for (const int members : {1, 2, 3, 9}) {
    ThreadTeam team(members);
    std::vector<int> seen(static_cast<size_t>(members)), sums(static_cast<size_t>(members));
    for (int round = 1; round <= 200; round++) {
      team.run([&](int member) {
        for (int phase = 0; phase < 3; phase++) {
          seen[static_cast<size_t>(member)] = round * 10 + phase;
          team.barrier();
          int sum = 0;
          for (const int value : seen) sum += value;
          sums[static_cast<size_t>(member)] = sum;
          team.barrier();
        }
      });
      for (const int sum : sums) check(sum == members * (round * 10 + 2), "a member saw old values");
    }
  }
}

TEST("thread team: an exception of a member reaches the caller, and the team goes on") {
  ThreadTeam team(3);
  for (int bad = 0; bad < 3; bad++) {
    check_fails("internal", [&] {
      team.run([&](int member) {
        if (member == bad) throw Failure("internal", "on purpose");
      });
    });
  }
  std::atomic<int> count{0};
  team.run([&](int) { count++; });
  check(count == 3, "not all members ran");
}

TEST("thread team: a pause between runs, in which the others sleep, loses no run") {
  ThreadTeam team(2);
  std::atomic<int> count{0};
  for (int pause_us : {0, 50, 190, 200, 210, 1000, 0}) {
    for (int i = 0; i < 5; i++) {
      std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
      team.run([&](int) { count++; });
    }
  }
  check(count == 70, "not all members ran each time");
}

TEST("work shares: every unit is taken once, in each use of each run, however late a member comes") {
  for (const int members : {1, 2, 3, 7}) {
    ThreadTeam team(members);
    WorkShares shares(members);
    for (int run = 0; run < 20; run++) {
      constexpr int kUses = 5;
      const int64_t counts[kUses] = {0, 1, 2 * members - 1, 97, 1000};
      std::vector<std::atomic<int>> taken[kUses];
      for (int use = 0; use < kUses; use++) taken[use] = std::vector<std::atomic<int>>(static_cast<size_t>(counts[use]));
      shares.reset();
      team.run([&](int member) {
        for (int use = 0; use < kUses; use++) {
          if (member == run % members) std::this_thread::sleep_for(std::chrono::microseconds(50 * (run % 3)));
          shares.take(use, member, counts[use], 1 + run % 4, [&](Range piece) {
            for (int64_t i = piece.begin; i < piece.end; i++) taken[use][static_cast<size_t>(i)]++;
          });
          team.barrier();
        }
      });
      for (const auto& units : taken) {
        for (const auto& times : units) check(times == 1, "a unit was not taken once");
      }
    }
  }
}

TEST("work shares: who is early takes from the share of who is late") {
  ThreadTeam team(2);
  WorkShares shares(2);
  std::atomic<int64_t> early{0};
  team.run([&](int member) {
    const auto start = std::chrono::steady_clock::now();
    while (member == 1 && early.load() < 16 && std::chrono::steady_clock::now() - start < std::chrono::seconds(10)) std::this_thread::yield();
    shares.take(0, member, 16, 1, [&](Range piece) {
      if (member == 0) early += piece.end - piece.begin;
    });
  });
  check(early == 16, "the late member's share was left to it");
}

TEST("there is a core") { check(available_cores() >= 1, "no core"); }

// tokenIds -> embedding -> linear -> logits, with attention and rope beside it so that all step inputs matter.
Program small_program() {
  Program program;
  const auto add = [&](ValueKind kind, StepInput input, Rows rows, int64_t width) {
    const int64_t offset = kind == ValueKind::temporary ? program.arena_bytes : 0;
    if (kind == ValueKind::temporary) program.arena_bytes += 8 * width * 4 / 64 * 64 + 64;
    program.values.push_back({kind, input, rows, width, offset});
    return static_cast<int32_t>(program.values.size()) - 1;
  };
  const int32_t ids = add(ValueKind::step_input, StepInput::token_ids, Rows::T, 0), positions = add(ValueKind::step_input, StepInput::positions, Rows::T, 0);
  const int32_t slots = add(ValueKind::step_input, StepInput::slot_mapping, Rows::T, 0), logit_rows = add(ValueKind::step_input, StepInput::logit_rows, Rows::R, 0);
  const int32_t table = add(ValueKind::weight, StepInput::token_ids, Rows::T, 0), angles = add(ValueKind::weight, StepInput::token_ids, Rows::T, 0);
  const int32_t head = add(ValueKind::weight, StepInput::token_ids, Rows::T, 0);
  const int32_t x = add(ValueKind::temporary, StepInput::token_ids, Rows::T, 16), r = add(ValueKind::temporary, StepInput::token_ids, Rows::T, 16);
  const int32_t a = add(ValueKind::temporary, StepInput::token_ids, Rows::T, 16), g = add(ValueKind::temporary, StepInput::token_ids, Rows::R, 16);
  program.logits = add(ValueKind::temporary, StepInput::token_ids, Rows::R, 20);
  program.vocab = 20;
  program.calls = {{Op::embedding, {ids, table}, {x}, {}},
                   {Op::rope, {x, positions, angles}, {r}, {16, 16, 0}},
                   {Op::kv_write, {r, x, slots}, {}, {0}},
                   {Op::paged_attention, {r, -1, -1}, {a}, {0, 1, 1, 16, 0.25, 0, 0}},
                   {Op::gather_rows, {a, logit_rows}, {g}, {}},
                   {Op::linear, {g, head, -1}, {program.logits}, {}}};
  return program;
}

constexpr KvShape kSmallKv = {1, 1, 16, KvType::bf16, 16, 3};
constexpr Limits kSmallLimits = {8, 2, 8};

std::unique_ptr<Model> small_model(const Program& program) {
  auto model = std::make_unique<Model>(*levels().front(), program, kSmallKv, kSmallLimits, 2);
  Random random(1);
  model->set_dense(4, random.floats(20 * 16).data(), 20, 16);
  model->set_dense(5, random.floats(48 * 16).data(), 48, 16);
  model->set_linear(6, random.floats(20 * 16).data(), 20, 16, WeightType::bf16);
  model->finish_loading();
  return model;
}

struct StepArrays {
  std::vector<int32_t> ids = {1, 2, 3}, positions = {0, 1, 2}, slots = {16, 17, 18}, starts = {0, 3}, lengths = {3}, tables = {1, 0}, rows = {2};
  int64_t tokens = 3, sequences = 1, logit_rows = 1, max_blocks = 2;
  Step step() const {
    return {tokens, sequences, logit_rows, max_blocks, ids.data(), positions.data(), slots.data(), starts.data(), lengths.data(), tables.data(), rows.data()};
  }
};

TEST("a good step runs, bad ones are refused before they touch anything") {
  const std::unique_ptr<Model> model = small_model(small_program());
  model->check_step(StepArrays().step());
  model->run(StepArrays().step());
  check(std::isfinite(model->temporary(model->program().logits)[0]), "no logits");
  const auto refused = [&](const std::function<void(StepArrays&)>& spoil) {
    StepArrays arrays;
    spoil(arrays);
    check_fails("assertion", [&] { model->check_step(arrays.step()); });
  };
  refused([](StepArrays& s) { s.tokens = 0; });
  refused([](StepArrays& s) { s.tokens = 9; });
  refused([](StepArrays& s) { s.sequences = 3; });
  refused([](StepArrays& s) { s.logit_rows = 9; });
  refused([](StepArrays& s) { s.ids[1] = 20; });
  refused([](StepArrays& s) { s.ids[1] = -1; });
  refused([](StepArrays& s) { s.positions = {46, 47, 48}; });
  refused([](StepArrays& s) { s.positions = {0, 1, 3}; });
  refused([](StepArrays& s) { s.slots[0] = 48; });
  refused([](StepArrays& s) { s.slots[0] = -1; });
  refused([](StepArrays& s) { s.starts = {0, 2}; });
  refused([](StepArrays& s) { s.starts = {1, 3}; });
  refused([](StepArrays& s) { s.lengths = {4}; });
  refused([](StepArrays& s) { s.tables = {3, 0}; });
  refused([](StepArrays& s) { s.max_blocks = 0; });
  refused([](StepArrays& s) { s.rows = {3}; });
}

TEST("bad programs are refused") {
  const auto refused = [](const std::function<void(Program&)>& spoil) {
    Program program = small_program();
    spoil(program);
    check_fails("assertion", [&] { small_model(program); });
  };
  refused([](Program& p) { p.calls[0].op = static_cast<Op>(99); });
  refused([](Program& p) { p.calls[0].op = static_cast<Op>(-1); });
  refused([](Program& p) { p.calls[0].inputs = {0}; });
  refused([](Program& p) { p.calls[0].inputs[1] = 99; });
  refused([](Program& p) { p.calls[0].inputs[1] = -1; });
  refused([](Program& p) { p.calls[0].inputs[1] = 0; });
  refused([](Program& p) { p.calls[0].outputs[0] = 4; });
  refused([](Program& p) { p.calls[1].attrs[0] = 5; });
  refused([](Program& p) { p.calls[1].attrs[1] = 18; });
  refused([](Program& p) { p.calls[1].attrs[1] = __builtin_nan(""); });
  refused([](Program& p) { p.calls[2].attrs[0] = 1; });
  refused([](Program& p) { p.calls[3].attrs[1] = 3; });
  refused([](Program& p) { p.calls[3].attrs[5] = -1; });
  refused([](Program& p) { p.values[7].offset = 1 << 20; });
  refused([](Program& p) { p.values[7].offset = -64; });
  refused([](Program& p) { p.values[7].width = 0; });
  refused([](Program& p) { p.logits = 99; });
  refused([](Program& p) { p.vocab = 21; });
}

TEST("weight files that lie are refused") {
  const std::string path = std::string(std::getenv("TMPDIR") ? std::getenv("TMPDIR") : "/tmp") + "/tokenmill_native_test.bin";
  std::ofstream(path, std::ios::binary) << std::string(100, '\0');
  Model model(*levels().front(), small_program(), kSmallKv, kSmallLimits, 1);
  const auto load = [&](const std::string& file, uint64_t offset, uint64_t bytes, int64_t rows) { model.load_linear(6, {{"w", file, offset, bytes, WeightType::f32, rows}}, 2, WeightType::bf16); };
  load(path, 20, 80, 10);
  check_fails("model_files_invalid", [&] { load(path, 24, 80, 10); });
  check_fails("model_files_invalid", [&] { load(path, 0, 800, 100); });
  check_fails("model_files_invalid", [&] { load(path, ~uint64_t{0} - 7, 80, 10); });
  check_fails("assertion", [&] { load(path, 0, 79, 10); });
  check_fails("model_files_missing", [&] { load(path + ".absent", 0, 80, 10); });
  const auto map = [&](uint64_t offset, int64_t rows) { model.map_packed(6, path, offset, rows, 1, WeightType::f32); };
  // 16 columns of two padded k are 128 bytes, more than the file has.
  check_fails("model_files_invalid", [&] { map(0, 1); });
  check_fails("model_files_invalid", [&] { map(~uint64_t{0} / 64 * 64, 1); });
  check_fails("assertion", [&] { map(8, 1); });
  check_fails("assertion", [&] { map(0, 0); });
  check_fails("assertion", [&] { map(0, int64_t{1} << 40); });
  // The file shrinks after it was mapped.
  std::ofstream(path, std::ios::binary | std::ios::trunc) << "short";
  check_fails("model_files_invalid", [&] { load(path, 20, 80, 10); });
  std::remove(path.c_str());
}

TEST("sampling: ties, restrictions and the edges of the range") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const KernelTable* kernels : levels()) {
    const std::vector<float> row = {1, 3, -infinity, 3, 0.5f, 2};
    const int64_t n = static_cast<int64_t>(row.size());
    RowScratch scratch;
    check(kernels->argmax(row.data(), n) == 1, "the lower id wins a tie");
    check(kernels->rank(row.data(), n, 2.0f) == 3, "rank counts what is strictly larger");
    const std::vector<TopEntry> top = top_k(*kernels, row.data(), n, 9, scratch);
    check(top.size() == 5 && top[0].id == 1 && top[1].id == 3 && top[4].id == 4, "top_k orders by logit, then id");
    check(std::fabs(kernels->log_sum_exp(row.data(), n) - std::log(std::exp(1.0) + 2 * std::exp(3.0) + std::exp(0.5) + std::exp(2.0))) < 1e-6, "log_sum_exp");
    check(sample_row(*kernels, row.data(), n, {1, 1, 1, 0}, 0.75, scratch) == 3, "a tie with the k-th is kept");
    check(sample_row(*kernels, row.data(), n, {1, 0, 1e-9, 0}, 0.9, scratch) == 1, "the largest stays");
    check(sample_row(*kernels, row.data(), n, {1, 0, 1, 0}, 0, scratch) == 0, "u = 0 draws the first");
    check(sample_row(*kernels, row.data(), n, {1, 0, 1, 0}, 1 - 0x1p-53, scratch) == 5, "u near 1 draws the last");
    check(sample_row(*kernels, row.data(), n, {1, 0, 1, 1}, 0, scratch) == 1, "min_p = 1 keeps the largest");
  }
}

// What top_p keeps, by its definition: from the smallest on while what is dropped stays within 1 - p; the largest stays.
std::vector<bool> kept_by_definition(const std::vector<float>& row, const std::vector<float>& weights, double top_p) {
  std::vector<int32_t> order(row.size());
  double total = 0, dropped = 0;
  for (size_t i = 0; i < row.size(); i++) {
    order[i] = static_cast<int32_t>(i);
    total += static_cast<double>(weights[i]);
  }
  const auto at = [](const auto& of, int32_t id) { return of[static_cast<size_t>(id)]; };
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return at(row, a) != at(row, b) ? at(row, a) > at(row, b) : a < b; });
  std::vector<bool> kept(row.size(), true);
  for (size_t i = order.size() - 1; i > 0; i--) {
    dropped += static_cast<double>(at(weights, order[i]));
    if (dropped > (1 - top_p) * total) break;
    kept[static_cast<size_t>(order[i])] = false;
  }
  return kept;
}

TEST("sampling: top_p keeps what its definition keeps, of peaked, flat and tied rows") {
  uint32_t state = 7;
  const auto random = [&] { return static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / static_cast<float>(1u << 24); };
  for (const KernelTable* kernels : levels()) {
    RowScratch scratch;
    for (const float spread : {0.0f, 1e-3f, 1.0f, 12.0f, 200.0f}) {
      for (const double top_p : {1e-6, 0.25, 0.5, 0.95, 0.999}) {
        std::vector<float> row(static_cast<size_t>(1 + 4999 * random()));
        // Steps of an eighth make ties.
        for (float& logit : row) logit = spread * std::floor(8 * random()) / 8 + (random() < 0.5f ? 0 : spread * random());
        const int64_t n = static_cast<int64_t>(row.size());
        std::vector<float> weights(row.size()), processed = row;
        kernels->softmax_weights(row.data(), n, row[static_cast<size_t>(kernels->argmax(row.data(), n))], 1, -std::numeric_limits<float>::infinity(), weights.data());
        const std::vector<bool> kept = kept_by_definition(row, weights, top_p);
        process_row(*kernels, processed.data(), n, {1, 0, top_p, 0}, scratch);
        int64_t differ = 0;
        for (size_t i = 0; i < row.size(); i++) differ += std::isinf(processed[i]) == kept[i] && weights[i] > 0 ? 1 : 0;
        // Sums in another order may put a border one entry away.
        check(differ <= 1, "top_p keeps other tokens");
      }
    }
  }
}

TEST("sampling: a batch draws what each row draws alone") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const KernelTable* kernels : levels()) {
    RowScratch scratch;
    const std::vector<float> row = {1, 3, -infinity, 3, 0.5f, 2};
    const int64_t n = static_cast<int64_t>(row.size());
    check(draw_row(*kernels, {row.data(), {0, 0, 1, 0}, 0.9}, n, scratch) == 1, "a temperature of 0 takes the largest");
    for (const double u : {0.0, 0.3, 0.99}) {
      const DrawParams params{0.7, 4, 0.9, 0.01};
      check(draw_row(*kernels, {row.data(), params, u}, n, scratch) == sample_row(*kernels, row.data(), n, params, u, scratch), "as alone");
    }
    for (const float bad : {nan, infinity, -infinity}) {
      const std::vector<float> broken(7, bad);
      check(draw_row(*kernels, {broken.data(), {1, 0, 1, 0}, 0.5}, 7, scratch) == -1, "no token of what is not a number");
    }
  }
}

TEST("sampling: known maxima of blocks change no draw") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  Random random(5);
  for (const KernelTable* kernels : levels()) {
    RowScratch scratch;
    for (const int64_t n : {1, 63, 64, 65, 300, 1000}) {
      for (int round = 0; round < 30; round++) {
        // Few different values, so that the largest occurs in several blocks.
        std::vector<float> row(static_cast<size_t>(n));
        for (float& x : row) x = round % 3 == 2 && random.next() > 0 ? (random.next() > 0 ? nan : -infinity) : std::round(3 * random.next());
        std::vector<float> maxima(static_cast<size_t>((n + kMaximaBlock - 1) / kMaximaBlock));
        kernels->block_maxima(row.data(), n, maxima.data());
        for (const DrawParams& params : {DrawParams{0, 0, 1, 0}, DrawParams{0.7, 0, 0.9, 0}, DrawParams{1, 20, 1, 0.1}}) {
          const RowDraw draw{row.data(), params, 0.6};
          RowDraw known = draw;
          known.maxima = maxima.data();
          check(draw_row(*kernels, known, n, scratch) == draw_row(*kernels, draw, n, scratch), "the same token");
        }
      }
    }
  }
}

}  // namespace
}  // namespace mill::test
