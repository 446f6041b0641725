#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/tensor_view.h"
#include "engine/model/weights.h"

namespace specdec {

/// What a head's matrices become when they are loaded.
enum class HeadWeights : std::uint8_t {
  as_stored,
  q8_0,  ///< bf16, f16 and f32 matrices are quantised to 8 bits: half of bf16's bytes a pass
  q4_1,  ///< ... to 4 bits with a scale and a minimum for 32, but for those that bear it badly
};

/// The tensors of a head that drafts: taken one by one, checked, and at the end none may be left.
/// What does not lie in the file as it is needed is kept in `converted`. Refers to `tensors`.
class HeadTensors {
 public:
  /// `kind` stands for the head in messages: "an EAGLE-3 head".
  HeadTensors(const std::vector<TensorView>& tensors, std::string file, std::string kind,
              HeadWeights weights, std::vector<std::vector<std::byte>>& converted);

  bool contains(std::string_view name) const { return tensors_.contains(name); }
  /// Throws Error(invalid_model) when it is not there or has another shape.
  const TensorView& take(const std::string& name, std::initializer_list<std::int64_t> shape);
  /// ... and Error(unsupported) when it holds no weights.
  const TensorView& take_weights(const std::string& name,
                                 std::initializer_list<std::int64_t> shape);
  std::vector<float> vector(const std::string& name, int size);

  struct Part {
    std::string name;
    int rows;
  };
  /// The fewest bits that a matrix bears.
  enum class Bits : std::uint8_t { four, eight };
  MatrixSource matrix(std::string name, int cols, const std::vector<Part>& parts,
                      Bits least = Bits::four);
  /// Rows of `cols` elements from `offset` on of a tensor with `stride` elements a row.
  RowSource rows(const TensorView& tensor, int num_rows, int cols, int offset, int stride,
                 Bits least);

  /// A tensor that may be there and is not needed.
  void ignore(const std::string& name) { used_.insert(name); }
  /// Throws Error(invalid_model) naming a tensor that nobody took.
  void check_unused() const;
  /// Throws Error(invalid_model) naming the file.
  [[noreturn]] void fail(const std::string& what) const;

 private:
  std::string file_;
  std::string kind_;
  HeadWeights weights_;
  std::vector<std::vector<std::byte>>& converted_;
  std::map<std::string, const TensorView*, std::less<>> tensors_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace specdec
