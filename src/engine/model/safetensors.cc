#include "engine/model/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/model/json_reader.h"
#include "specdec/error.h"

namespace specdec {
namespace {

using kernels::DataType;
using nlohmann::json;

constexpr std::uint64_t kLongestHeader = 100'000'000;  // the format's limit
constexpr std::size_t kMostDimensions = 8;

struct Dtype {
  std::string_view name;
  std::size_t bytes;
  std::optional<DataType> type;
};

constexpr std::array<Dtype, 15> kDtypes = {{
    {"F32", 4, DataType::f32},
    {"F16", 2, DataType::f16},
    {"BF16", 2, DataType::bf16},
    {"F64", 8, std::nullopt},
    {"C64", 8, std::nullopt},
    {"I64", 8, std::nullopt},
    {"U64", 8, std::nullopt},
    {"I32", 4, std::nullopt},
    {"U32", 4, std::nullopt},
    {"I16", 2, std::nullopt},
    {"U16", 2, std::nullopt},
    {"I8", 1, std::nullopt},
    {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt},
    {"F8_E4M3", 1, std::nullopt},
}};

/// One entry of the header; `fail` throws with the tensor's name.
template <typename Fail>
TensorView read_entry(const json& entry, std::span<const std::byte> data, const Fail& fail) {
  if (!entry.is_object()) fail(ErrorCode::invalid_model, "must be an object");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!entry.contains(key)) {
      fail(ErrorCode::invalid_model, std::string("'") + key + "' is missing");
    }
  }
  const json& dtype = entry["dtype"];
  const json& shape = entry["shape"];
  const json& offsets = entry["data_offsets"];
  if (!dtype.is_string()) fail(ErrorCode::invalid_model, "'dtype' must be a string");
  if (!shape.is_array() || shape.size() > kMostDimensions) {
    fail(ErrorCode::invalid_model,
         "'shape' must be an array of at most " + std::to_string(kMostDimensions));
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    fail(ErrorCode::invalid_model, "'data_offsets' must be two integers, 0 or above");
  }
  const auto& name = dtype.get_ref<const std::string&>();
  const auto* known = std::ranges::find(kDtypes, name, &Dtype::name);
  if (known == kDtypes.end()) {
    fail(ErrorCode::unsupported,
         "dtype " + in_quotes(name) + " is not supported; convert the model to F32, F16 or BF16");
  }

  TensorView tensor;
  tensor.type_name = known->name;
  tensor.type = known->type;
  std::uint64_t bytes = known->bytes;
  for (const json& dimension : shape) {
    if (!dimension.is_number_unsigned() ||
        dimension.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<int>::max()}) {
      fail(ErrorCode::invalid_model, "'shape' holds " + in_quotes(dimension.dump()) +
                                         ", must hold integers from 0 to 2147483647");
    }
    const auto size = dimension.get<std::uint64_t>();
    if (size != 0 && bytes > std::numeric_limits<std::uint64_t>::max() / size) {
      fail(ErrorCode::invalid_model, "the size of 'shape' does not fit into 64 bits");
    }
    bytes *= size;
    tensor.shape.push_back(static_cast<std::int64_t>(size));
  }
  const auto begin = offsets[0].get<std::uint64_t>();
  const auto end = offsets[1].get<std::uint64_t>();
  if (begin > end || end > data.size()) {
    fail(ErrorCode::invalid_model,
         "'data_offsets' " + std::to_string(begin) + ".." + std::to_string(end) +
             " do not lie in the file's " + std::to_string(data.size()) +
             " bytes of data; it is truncated or damaged, download it again");
  }
  if (end - begin != bytes) {
    fail(ErrorCode::invalid_model, "'data_offsets' span " + std::to_string(end - begin) +
                                       " bytes, shape " + shape_text(tensor.shape) + " of " + name +
                                       " takes " + std::to_string(bytes));
  }
  tensor.data = data.subspan(begin, bytes);
  return tensor;
}

void check_tiling(const std::vector<TensorView>& tensors, std::span<const std::byte> data,
                  const std::string& file) {
  std::vector<const TensorView*> order;
  for (const TensorView& tensor : tensors) order.push_back(&tensor);
  // Empty tensors first among equals: they overlap nothing.
  std::ranges::sort(order, [](const TensorView* a, const TensorView* b) {
    return std::pair(a->data.data(), a->data.size()) < std::pair(b->data.data(), b->data.size());
  });
  const std::byte* at = data.data();
  for (const TensorView* tensor : order) {
    if (tensor->data.data() != at) {
      throw Error(ErrorCode::invalid_model,
                  file + ": tensor " + in_quotes(tensor->name) +
                      (tensor->data.data() < at ? ": overlaps the tensor before it"
                                                : ": the data before it belongs to no tensor"));
    }
    at += tensor->data.size();
  }
  if (at != data.data() + data.size()) {
    throw Error(ErrorCode::invalid_model, file + ": the last " +
                                              std::to_string(data.data() + data.size() - at) +
                                              " bytes of data belong to no tensor");
  }
}

}  // namespace

std::vector<TensorView> read_safetensors(const MappedFile& file) {
  const auto bytes = file.bytes();
  const auto fail_file = [&](const std::string& what) {
    throw Error(ErrorCode::invalid_model, file.name() + ": " + what);
  };
  std::uint64_t header_size = 0;
  if (bytes.size() < sizeof header_size) fail_file("is too short for a safetensors header");
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  if (header_size > kLongestHeader) {
    fail_file("the header claims " + std::to_string(header_size) +
              " bytes, the format allows 100000000; this is no safetensors file");
  }
  if (header_size > bytes.size() - sizeof header_size) {
    fail_file("the header of " + std::to_string(header_size) + " bytes ends past the file's " +
              std::to_string(bytes.size()) + "; it is truncated, download it again");
  }
  const auto text = bytes.subspan(sizeof header_size, header_size);
  const auto data = bytes.subspan(sizeof header_size + header_size);
  if (text.empty() || text[0] != std::byte{'{'}) fail_file("the header does not begin with '{'");
  const json header =
      parse_json({reinterpret_cast<const char*>(text.data()), text.size()}, file.name());

  std::vector<TensorView> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object() ||
          !std::ranges::all_of(entry, [](const json& value) { return value.is_string(); })) {
        fail_file("'__metadata__' must map strings to strings");
      }
      continue;
    }
    tensors.push_back(
        read_entry(entry, data, [&, &tensor = name](ErrorCode code, const std::string& what) {
          throw Error(code, file.name() + ": tensor " + in_quotes(tensor) + ": " + what);
        }));
    tensors.back().name = name;
    tensors.back().file = file.name();
  }
  check_tiling(tensors, data, file.name());
  return tensors;
}

}  // namespace specdec
