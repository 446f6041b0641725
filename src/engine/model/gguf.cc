#include "engine/model/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>

#include "engine/model/gguf_reader.h"
#include "specdec/error.h"

namespace specdec {

static_assert(std::endian::native == std::endian::little, "model files are little-endian");

namespace {

using kernels::DataType;

constexpr std::uint64_t kLongestKey = 65535;  // the specification's limit
constexpr std::uint64_t kLongestTensorName = 64;
constexpr std::uint32_t kMostDimensions = 4;
constexpr std::int64_t kLargestDimension = std::numeric_limits<std::int32_t>::max();
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint64_t kLargestAlignment = 1 << 20;

/// ggml's tensor types by number; those removed from ggml are empty.
constexpr std::array<std::string_view, 40> kTensorTypes = {
    "F32",     "F16",    "Q4_0",    "Q4_1",  "",       "",      "Q5_0",  "Q5_1",
    "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
    "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
    "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16",  "",
    "",        "",       "TQ1_0",   "TQ2_0", "",       "",      "",      "MXFP4"};

std::optional<DataType> tensor_type(std::uint32_t type) {
  switch (type) {
    case 0:
      return DataType::f32;
    case 1:
      return DataType::f16;
    case 2:
      return DataType::q4_0;
    case 3:
      return DataType::q4_1;
    case 8:
      return DataType::q8_0;
    case 30:
      return DataType::bf16;
    default:
      return std::nullopt;
  }
}

/// Bytes of one element; 0 for strings, which have no fixed size.
std::size_t element_bytes(GgufType type) noexcept {
  switch (type) {
    case GgufType::uint8:
    case GgufType::int8:
    case GgufType::boolean:
      return 1;
    case GgufType::uint16:
    case GgufType::int16:
      return 2;
    case GgufType::uint32:
    case GgufType::int32:
    case GgufType::float32:
      return 4;
    case GgufType::uint64:
    case GgufType::int64:
    case GgufType::float64:
      return 8;
    case GgufType::string:
    case GgufType::array:
      break;
  }
  return 0;
}

const char* type_name(GgufType type) noexcept {
  constexpr std::array<const char*, 13> kNames = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                                  "int32",  "float32", "bool",   "string", "array",
                                                  "uint64", "int64",   "float64"};
  return kNames[static_cast<std::size_t>(type)];
}

GgufType read_type(GgufReader& reader) {
  const auto type = reader.scalar<std::uint32_t>("a value type");
  if (type > static_cast<std::uint32_t>(GgufType::float64)) {
    reader.fail("unknown value type " + std::to_string(type));
  }
  return static_cast<GgufType>(type);
}

GgufValue read_value(GgufReader& reader, std::span<const std::byte> file) {
  GgufValue value;
  value.type = read_type(reader);
  if (value.type == GgufType::array) {
    value.is_array = true;
    value.type = read_type(reader);
    // No writer nests arrays, and nothing that specdec reads would.
    if (value.type == GgufType::array) reader.fail("arrays of arrays are not supported");
    value.count = reader.scalar<std::uint64_t>("an array length");
  }
  const std::size_t element = element_bytes(value.type);
  const std::size_t smallest = element == 0 ? sizeof(std::uint64_t) : element;
  if (value.count > reader.remaining() / smallest) {
    reader.fail((value.is_array ? "an array of " + std::to_string(value.count) + " " +
                                      type_name(value.type) + " values"
                                : std::string("a ") + type_name(value.type)) +
                " does not fit into the " + std::to_string(reader.remaining()) +
                " bytes that are left of the file; it is truncated or damaged, download it again");
  }
  const std::size_t begin = reader.position();
  if (element == 0) {
    for (std::uint64_t i = 0; i < value.count; ++i) reader.string("a string value");
  } else {
    reader.take(value.count * element, "a value");
  }
  value.payload = file.subspan(begin, reader.position() - begin);
  if (value.type == GgufType::boolean &&
      std::ranges::any_of(value.payload, [](std::byte b) { return b > std::byte{1}; })) {
    reader.fail("a bool must be 0 or 1");
  }
  return value;
}

template <typename T>
T load(const std::byte* at) noexcept {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

/// The integer at `at`; nullopt when it is none or above INT64_MAX.
std::optional<std::int64_t> load_integer(GgufType type, const std::byte* at) noexcept {
  switch (type) {
    case GgufType::uint8:
      return load<std::uint8_t>(at);
    case GgufType::int8:
      return load<std::int8_t>(at);
    case GgufType::uint16:
      return load<std::uint16_t>(at);
    case GgufType::int16:
      return load<std::int16_t>(at);
    case GgufType::uint32:
      return load<std::uint32_t>(at);
    case GgufType::int32:
      return load<std::int32_t>(at);
    case GgufType::int64:
      return load<std::int64_t>(at);
    case GgufType::uint64: {
      const auto value = load<std::int64_t>(at);
      return value < 0 ? std::nullopt : std::optional(value);
    }
    default:
      return std::nullopt;
  }
}

}  // namespace

GgufFile::GgufFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {
  const auto bytes = file_->bytes();
  GgufReader reader(bytes, name());
  reader.set_context("the GGUF header");
  const auto magic = reader.take(4, "the magic");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) reader.fail("this is no GGUF file");
  const auto version = reader.scalar<std::uint32_t>("the version");
  if (version != 2 && version != 3) {
    throw Error(ErrorCode::unsupported,
                name() + ": " +
                    ((version & 0xffff) == 0 ? "a big-endian GGUF file"
                                             : "GGUF version " + std::to_string(version)) +
                    "; specdec reads versions 2 and 3, little-endian: convert the model again");
  }
  const auto num_tensors = reader.scalar<std::uint64_t>("the tensor count");
  const auto num_values = reader.scalar<std::uint64_t>("the metadata count");
  // The smallest entries: name length, one byte of name, then dimensions count, one dimension,
  // type, offset; or a value type and one byte.
  if (num_tensors > reader.remaining() / 33) {
    reader.fail("the file is too short for " + std::to_string(num_tensors) + " tensors");
  }
  if (num_values > reader.remaining() / 14) {
    reader.fail("the file is too short for " + std::to_string(num_values) + " metadata values");
  }
  values_.reserve(num_values);
  for (std::uint64_t i = 0; i < num_values; ++i) {
    reader.set_context("metadata value " + std::to_string(i));
    const auto key = reader.string("a key", kLongestKey);
    if (key.empty() || !is_utf8(key)) reader.fail("the key " + in_quotes(key) + " is no name");
    reader.set_context("key " + in_quotes(key));
    if (!values_.emplace(key, read_value(reader, bytes)).second) reader.fail("appears twice");
  }
  read_tensors(reader, num_tensors);
}

void GgufFile::read_tensors(GgufReader& reader, std::uint64_t count) {
  std::vector<std::uint64_t> offsets;
  tensors_.reserve(count);
  offsets.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    reader.set_context("tensor " + std::to_string(i));
    TensorView tensor;
    tensor.name = reader.string("a tensor name", kLongestTensorName);
    if (tensor.name.empty() || !is_utf8(tensor.name)) {
      reader.fail("the tensor name " + in_quotes(tensor.name) + " is no name");
    }
    reader.set_context("tensor " + in_quotes(tensor.name));
    tensor.file = name();
    const auto num_dimensions = reader.scalar<std::uint32_t>("the number of dimensions");
    if (num_dimensions < 1 || num_dimensions > kMostDimensions) {
      reader.fail("has " + std::to_string(num_dimensions) + " dimensions, 1 to 4 are allowed");
    }
    for (std::uint32_t d = 0; d < num_dimensions; ++d) {
      const auto dimension = reader.scalar<std::uint64_t>("a dimension");
      if (dimension < 1 || dimension > static_cast<std::uint64_t>(kLargestDimension)) {
        reader.fail("dimension " + std::to_string(d) + " is " + std::to_string(dimension) +
                    ", 1 to 2147483647 is allowed");
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(dimension));
    }
    const auto type = reader.scalar<std::uint32_t>("the tensor type");
    tensor.type = tensor_type(type);
    if (!tensor.type.has_value()) {
      const auto known = type < kTensorTypes.size() ? kTensorTypes[type] : std::string_view();
      throw Error(ErrorCode::unsupported,
                  name() + ": tensor " + in_quotes(tensor.name) + " has type " +
                      (known.empty() ? "number " + std::to_string(type) : std::string(known)) +
                      "; requantise the model to Q8_0, Q4_1, Q4_0, BF16, F16 or F32");
    }
    tensor.type_name = to_string(*tensor.type);
    if (tensor.shape.back() % block_elements(*tensor.type) != 0) {
      reader.fail("rows of " + std::to_string(tensor.shape.back()) + " elements are no multiple" +
                  " of a " + tensor.type_name + " block (32)");
    }
    offsets.push_back(reader.scalar<std::uint64_t>("the tensor offset"));
    tensors_.push_back(std::move(tensor));
  }

  reader.set_context("key 'general.alignment'");
  const std::int64_t alignment = integer("general.alignment").value_or(kDefaultAlignment);
  if (alignment < 8 || alignment > static_cast<std::int64_t>(kLargestAlignment) ||
      !std::has_single_bit(static_cast<std::uint64_t>(alignment))) {
    reader.fail("is " + std::to_string(alignment) + ", must be a power of two from 8 to 1048576");
  }
  const auto mask = static_cast<std::size_t>(alignment) - 1;
  place_tensors(offsets, (reader.position() + mask) & ~mask, static_cast<std::uint64_t>(alignment));
}

void GgufFile::place_tensors(std::span<const std::uint64_t> offsets, std::size_t data_begin,
                             std::uint64_t alignment) {
  const auto bytes = file_->bytes();
  const std::size_t data_size = bytes.size() - std::min(data_begin, bytes.size());
  const auto fail_tensor = [&](const TensorView& tensor, const std::string& what) {
    throw Error(ErrorCode::invalid_model,
                name() + ": tensor " + in_quotes(tensor.name) + ": " + what);
  };
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    TensorView& tensor = tensors_[i];
    // No partial product exceeds the elements that fit into the file (rounded up to a block), so
    // none overflows.
    const std::size_t most = data_size / tensor_bytes(*tensor.type, 32) * 32 + 32;
    std::size_t elements = 1;
    for (const std::int64_t dimension : tensor.shape) {
      if (elements > most / static_cast<std::size_t>(dimension)) {
        fail_tensor(tensor, "shape " + shape_text(tensor.shape) + " of " + tensor.type_name +
                                " is larger than the file's " + std::to_string(data_size) +
                                " bytes of data; it is truncated or damaged, download it again");
      }
      elements *= static_cast<std::size_t>(dimension);
    }
    const std::size_t size = tensor_bytes(*tensor.type, elements);
    if (offsets[i] % alignment != 0) {
      fail_tensor(tensor, "offset " + std::to_string(offsets[i]) + " is no multiple of the" +
                              " alignment " + std::to_string(alignment));
    }
    if (offsets[i] > data_size || size > data_size - offsets[i]) {
      fail_tensor(tensor, "its " + std::to_string(size) + " bytes at offset " +
                              std::to_string(offsets[i]) + " end past the file's " +
                              std::to_string(data_size) +
                              " bytes of data; it is truncated, download it again");
    }
    tensor.data = bytes.subspan(data_begin + offsets[i], size);
  }
  std::vector<std::size_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return offsets[i]; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const TensorView& before = tensors_[order[i - 1]];
    const TensorView& after = tensors_[order[i]];
    if (after.data.data() < before.data.data() + before.data.size()) {
      fail_tensor(after, "overlaps tensor " + in_quotes(before.name));
    }
  }
}

bool GgufFile::is_array(std::string_view key) const noexcept {
  const auto found = values_.find(key);
  return found != values_.end() && found->second.is_array;
}

const GgufValue* GgufFile::find(std::string_view key, bool array) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return nullptr;
  if (found->second.is_array != array) fail(key, array ? "must be an array" : "is an array");
  return &found->second;
}

void GgufFile::fail(std::string_view key, const std::string& what) const {
  throw Error(ErrorCode::invalid_model, name() + ": key " + in_quotes(key) + ": " + what);
}

std::optional<std::string_view> GgufFile::string(std::string_view key) const {
  const GgufValue* value = find(key, false);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::string) {
    fail(key, std::string("must be a string, is ") + type_name(value->type));
  }
  const auto* text = reinterpret_cast<const char*>(value->payload.data());
  return std::string_view(text + sizeof(std::uint64_t),
                          value->payload.size() - sizeof(std::uint64_t));
}

std::optional<std::int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find(key, false);
  if (value == nullptr) return std::nullopt;
  const auto result = load_integer(value->type, value->payload.data());
  if (!result.has_value()) {
    fail(key, std::string("must be an integer below 2^63, is ") + type_name(value->type));
  }
  return result;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find(key, false);
  if (value == nullptr) return std::nullopt;
  double result = 0;
  if (value->type == GgufType::float32) {
    result = load<float>(value->payload.data());
  } else if (value->type == GgufType::float64) {
    result = load<double>(value->payload.data());
  } else {
    result = static_cast<double>(*integer(key));
  }
  if (!(result >= -std::numeric_limits<double>::max() &&
        result <= std::numeric_limits<double>::max())) {
    fail(key, "must be finite");
  }
  return result;
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const GgufValue* value = find(key, false);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::boolean) {
    fail(key, std::string("must be a bool, is ") + type_name(value->type));
  }
  return value->payload[0] != std::byte{0};
}

std::optional<std::vector<std::string>> GgufFile::strings(std::string_view key) const {
  const GgufValue* value = find(key, true);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::string) {
    fail(key, std::string("must be an array of strings, is one of ") + type_name(value->type));
  }
  std::vector<std::string> result;
  result.reserve(value->count);
  GgufReader reader(value->payload, name());
  for (std::uint64_t i = 0; i < value->count; ++i) {
    result.emplace_back(reader.string("a string value"));
  }
  return result;
}

std::optional<std::vector<std::int64_t>> GgufFile::integers(std::string_view key) const {
  const GgufValue* value = find(key, true);
  if (value == nullptr) return std::nullopt;
  std::vector<std::int64_t> result;
  result.reserve(value->count);
  const std::size_t size = element_bytes(value->type);
  for (std::uint64_t i = 0; i < value->count; ++i) {
    const auto element = load_integer(value->type, value->payload.data() + i * size);
    if (!element.has_value()) {
      fail(key, std::string("must be an array of integers, is one of ") + type_name(value->type));
    }
    result.push_back(*element);
  }
  return result;
}

}  // namespace specdec
