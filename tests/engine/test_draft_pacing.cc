#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "engine/draft_pacing.h"

// The goodput rule over steps, without a model: who drafts, how far, and for how long not.

using namespace specdec;

namespace {

/// A pass over `rows` rows takes base + rows * each.
CostCurve linear(double base, double each) {
  std::vector<std::pair<int, double>> points;
  for (const int rows : {1, 2, 4, 8, 16, 32}) points.emplace_back(rows, base + each * rows);
  return CostCurve(points);
}

Sequence decoding_sequence(int draft_depth) {
  Sequence sequence;
  sequence.num_known = 1;
  sequence.samples = true;
  sequence.draft_depth = draft_depth;
  sequence.draft_nodes = 64;
  return sequence;
}

int add_node(Sequence& sequence, int parent, const NodeOrigin& origin) {
  sequence.origins.push_back(origin);
  return sequence.tree.add(sequence.tree.size(), parent);
}

void begin_step(DraftPacing& pacing, Sequence& sequence) {
  sequence.tree.reset(0);
  sequence.origins.assign(1, NodeOrigin{});
  Sequence* const batch[] = {&sequence};
  pacing.begin(batch);
}

/// One step in a text where the model is right with probability `acceptance`. Returns how many
/// tokens were verified.
int simulate(DraftPacing& pacing, Sequence& sequence, double acceptance, std::mt19937& random) {
  begin_step(pacing, sequence);
  const int depth = pacing.first_depth(sequence, 1, 1);
  float survival = 1;
  for (int at = 0; at < depth; ++at) {
    survival *= 0.6f;
    add_node(sequence, at, {.confidence = 0.6f, .estimate = 0.6f, .survival = survival});
  }
  Sequence* const batch[] = {&sequence};
  pacing.trim(batch);
  sequence.path.nodes = {0};
  std::bernoulli_distribution right(acceptance);
  for (int node = 1; node < sequence.tree.size() && right(random); ++node)
    sequence.path.nodes.push_back(node);
  pacing.learn(sequence);
  return sequence.tree.num_draft_tokens();
}

/// A column of `length` nodes below `parent`; the last is watched.
int add_column(Sequence& sequence, int parent, int length, int watched) {
  for (int i = 0; i < length; ++i)
    parent = add_node(sequence, parent, {.drafter = 2, .confidence = 0.1f, .estimate = 0.01f});
  NodeOrigin& last = sequence.origins.back();
  last.watcher = 2;
  last.watched = watched;
  return parent;
}

}  // namespace

TEST_CASE("a change of domain is noticed: drafting ends where it does not pay and returns") {
  // Drafts fail by chance too, so one sequence proves nothing.
  constexpr int kSequences = 40;
  std::mt19937 random(4);
  std::vector<DraftPacing> pacings(kSequences);
  std::vector<Sequence> sequences;
  for (DraftPacing& pacing : pacings) {
    pacing.set_costs(linear(10, 0.5), linear(2, 0.1));
    sequences.push_back(decoding_sequence(6));
  }
  // The share of steps that drafted.
  const auto drafted_in = [&](double acceptance, int steps) {
    int drafted = 0;
    for (std::size_t i = 0; i < sequences.size(); ++i)
      for (int step = 0; step < steps; ++step)
        drafted += simulate(pacings[i], sequences[i], acceptance, random) > 0 ? 1 : 0;
    return drafted / static_cast<double>(kSequences * steps);
  };
  for (int change = 0; change < 3; ++change) {
    CAPTURE(change);
    // Text that the draft knows: tried again after 64 steps at the latest, and a dozen right drafts
    // later it pays.
    drafted_in(0.8, 64 + 96);
    CHECK(drafted_in(0.8, 100) > 0.9);
    // Text that it does not: given up when the memory of some twenty drafts has faded, and only
    // probed from then on.
    CHECK(drafted_in(0.02, 80) < 0.5);
    CHECK(drafted_in(0.02, 200) < 0.05);
  }
}

TEST_CASE("an adaptive step verifies a whole window or none of it") {
  for (const bool cheap : {true, false}) {
    CAPTURE(cheap);
    DraftPacing pacing;
    pacing.set_costs(linear(10, cheap ? 0.01 : 5), linear(1, 0));
    Sequence sequence = decoding_sequence(6);
    begin_step(pacing, sequence);
    const int spine = add_column(sequence, 0, 2, 0);
    add_column(sequence, 1, 3, 1);
    // A branch that nobody watches, with nothing to recommend it, and one with much.
    add_node(sequence, spine, {.drafter = 1, .survival = 0.0001f});
    add_node(sequence, 0, {.drafter = 1, .survival = 0.9f});
    for (NodeOrigin& origin : sequence.origins)
      if (origin.drafter == 2) origin.survival = 0.0001f;
    Sequence* const batch[] = {&sequence};
    pacing.trim(batch);
    int watched = 0;
    for (const NodeOrigin& origin : sequence.origins) watched += origin.watcher != 0 ? 1 : 0;
    CHECK(watched == (cheap ? 2 : 0));
    CHECK(sequence.tree.num_draft_tokens() == (cheap ? 6 : 1));
    CHECK((sequence.window_of == 2) == cheap);
  }
}

TEST_CASE("drafts that spare verification their rows' first layers go deeper") {
  for (const bool shared : {false, true}) {
    CAPTURE(shared);
    DraftPacing pacing;
    pacing.set_costs({linear(4, 1), shared ? linear(1, 0.9) : CostCurve()}, linear(1, 0));
    Sequence sequence = decoding_sequence(6);
    begin_step(pacing, sequence);
    Sequence* const batch[] = {&sequence};
    pacing.begin_model(batch, 1);
    // One pass more: of 2 rows, of 3 then, all but one of them have been run. 1.6 tokens in 7 and
    // 2.02 in 9, or in 6.1 and in 7.2.
    const float survivals[] = {0.6f};
    const GrowthControl::Level level{
        .survivals = survivals, .best_frontier = 0.6f, .frontier_rows = 1};
    CHECK(pacing.go_on(1, {&level, 1}) == shared);
  }
}

TEST_CASE("a prompt beside it makes no draft look cheap") {
  // A row costs half of what a plain step does, and the draft is right in one of four.
  for (const int prompt_rows : {0, 500}) {
    CAPTURE(prompt_rows);
    DraftPacing pacing;
    pacing.set_costs(linear(1, 1), linear(0.1, 0));
    Sequence sequence = decoding_sequence(6);
    for (int i = 0; i < 100; ++i) sequence.history.observe_depth(1, i % 4 == 0);
    sequence.history.paid();  // no probe is due
    Sequence prompt;
    prompt.num_known = prompt_rows;
    Sequence* const batch[] = {&sequence, &prompt};
    pacing.begin(std::span(batch).first(prompt_rows > 0 ? 2 : 1));
    CHECK(pacing.first_depth(sequence, 1, 1) == 0);
    sequence.tree.reset(0);
    sequence.origins.assign(1, NodeOrigin{});
    add_node(sequence, 0, {.drafter = 1, .confidence = 0.25f, .survival = 0.25f});
    add_node(sequence, 0, {.drafter = 1, .confidence = 0.9f, .survival = 0.9f});
    prompt.tree.reset(0);
    prompt.origins.assign(1, NodeOrigin{});
    pacing.trim(std::span(batch).first(prompt_rows > 0 ? 2 : 1));
    CHECK(sequence.tree.num_draft_tokens() == 1);
  }
}

TEST_CASE("in a wide batch the probes of all sequences lose no more than those of one may") {
  // A row costs nearly what a token is worth, so no draft pays; every other one is right, after
  // which its sequence would try again at once.
  constexpr int kSequences = 16;
  constexpr int kSteps = 400;
  constexpr double kRow = 0.6;
  DraftPacing pacing;
  pacing.set_costs(linear(1, kRow), linear(0.2, 0.02));
  std::vector<Sequence> sequences;
  std::vector<Sequence*> batch;
  for (int i = 0; i < kSequences; ++i) sequences.push_back(decoding_sequence(6));
  for (Sequence& sequence : sequences) batch.push_back(&sequence);
  std::mt19937 random(6);
  std::bernoulli_distribution right(0.5);
  const double plain = 1 + kRow * kSequences;
  int probes = 0;
  double lost = 0;  // seconds
  for (int step = 0; step < kSteps; ++step) {
    for (Sequence& sequence : sequences) {
      sequence.tree.reset(0);
      sequence.origins.assign(1, NodeOrigin{});
    }
    pacing.begin(batch);
    for (Sequence& sequence : sequences) {
      if (pacing.first_depth(sequence, kSequences, 3) == 0) continue;
      CHECK(sequence.probes);
      add_node(sequence, 0, {.confidence = 0.5f, .estimate = 0.5f, .survival = 0.5f});
      lost += 0.2 + 0.02 * 3 + kRow;
      ++probes;
    }
    pacing.trim(batch);
    for (Sequence& sequence : sequences) {
      sequence.path.nodes = {0};
      if (sequence.tree.num_draft_tokens() > 0 && right(random)) {
        sequence.path.nodes.push_back(1);
        lost -= plain / kSequences;
      }
      pacing.learn(sequence);
    }
  }
  CHECK(probes > kSteps / 20);
  CHECK(lost < 0.015 * kSteps * plain);
}

TEST_CASE("a head that could not pay in a batch so wide is not kept ready") {
  DraftPacing pacing;
  Sequence sequence = decoding_sequence(6);
  sequence.max_draft = 6;
  CHECK(pacing.may_pay(sequence, 32));  // nothing is known
  pacing.set_costs(linear(3, 0.6), linear(0.2, 0.02));
  CHECK(pacing.may_pay(sequence, 1));
  CHECK(pacing.may_pay(sequence, 4));
  CHECK_FALSE(pacing.may_pay(sequence, 32));
  // Where rows cost nothing every batch is narrow.
  pacing.set_costs(linear(3, 0.001), linear(0.2, 0));
  CHECK(pacing.may_pay(sequence, 32));
}

TEST_CASE("a head comes back where what it missed is worth what is left") {
  DraftPacing pacing;
  Sequence sequence = decoding_sequence(6);
  sequence.max_draft = 6;
  sequence.request.sampling.max_tokens = sequence.num_output() + 100;
  std::vector<Sequence*> batch = {&sequence};
  // Nothing is known: two missed tokens for each that is left.
  CHECK(pacing.pays_to_return(sequence, 1, 6, 200));
  CHECK_FALSE(pacing.pays_to_return(sequence, 1, 6, 201));

  // Plain decoding takes 3.6 a token; drafting two thirds of it at a draft's usual worth.
  const auto set_costs = [&](double each) {
    pacing.set_costs(linear(3, 0.6), linear(0.2, 0.02), linear(0, each));
    pacing.begin(batch);
  };
  set_costs(0.5);
  CHECK(pacing.pays_to_return(sequence, 1, 6, 100));
  CHECK_FALSE(pacing.pays_to_return(sequence, 1, 6, 400));
  CHECK_FALSE(pacing.pays_to_return(sequence, 1, 0, 1));
  // In a batch so wide no draft pays.
  CHECK_FALSE(pacing.pays_to_return(sequence, 32, 6, 1));
  // Nearly done.
  sequence.request.sampling.max_tokens = sequence.num_output() + 10;
  CHECK_FALSE(pacing.pays_to_return(sequence, 1, 6, 100));
  CHECK(pacing.pays_to_return(sequence, 1, 6, 10));
  // What is left counts for 128 tokens at most.
  sequence.request.sampling.max_tokens = sequence.num_output() + 100000;
  CHECK_FALSE(pacing.pays_to_return(sequence, 1, 6, 1000));
  set_costs(0.01);
  CHECK(pacing.pays_to_return(sequence, 1, 6, 1000));
  // Drafts have been wrong, or another drafter does as well.
  Sequence wrong = decoding_sequence(6);
  wrong.request = sequence.request;
  for (int i = 0; i < 30; ++i) wrong.history.observe_depth(1, false);
  CHECK_FALSE(pacing.pays_to_return(wrong, 1, 6, 10));
  sequence.stats.speculation.num_spec_steps = 10;
  sequence.stats.speculation.num_output_tokens = 30;
  CHECK_FALSE(pacing.pays_to_return(sequence, 1, 6, 10));
}
