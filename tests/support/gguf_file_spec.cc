#include "support/gguf_file_spec.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace specdec::testing {
namespace {

enum : std::uint32_t {
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10
};

std::uint64_t align_up(std::uint64_t at, std::uint64_t alignment) {
  return (at + alignment - 1) / alignment * alignment;
}

template <typename Items>
auto& find_named(Items& items, std::string_view name, auto member) {
  const auto found = std::ranges::find(items, name, member);
  if (found == items.end()) throw std::out_of_range("GgufFileSpec: no " + std::string(name));
  return *found;
}

}  // namespace

void GgufFileSpec::set(const std::string& key, std::uint32_t type, std::vector<std::byte> payload) {
  const auto found = std::ranges::find(values, key, &Value::key);
  if (found == values.end()) {
    values.push_back({key, type, std::move(payload)});
  } else {
    *found = {key, type, std::move(payload)};
  }
}

void GgufFileSpec::set_u32(const std::string& key, std::uint32_t value) {
  set(key, kU32, Bytes().add(value).data);
}
void GgufFileSpec::set_u64(const std::string& key, std::uint64_t value) {
  set(key, kU64, Bytes().add(value).data);
}
void GgufFileSpec::set_i32(const std::string& key, std::int32_t value) {
  set(key, kI32, Bytes().add(value).data);
}
void GgufFileSpec::set_f32(const std::string& key, float value) {
  set(key, kF32, Bytes().add(value).data);
}
void GgufFileSpec::set_bool(const std::string& key, bool value) {
  set(key, kBool, Bytes().add<std::uint8_t>(value ? 1 : 0).data);
}
void GgufFileSpec::set_string(const std::string& key, std::string_view value) {
  set(key, kString, Bytes().add_string(value).data);
}
void GgufFileSpec::set_strings(const std::string& key, const std::vector<std::string>& strings) {
  Bytes payload;
  payload.add<std::uint32_t>(kString).add<std::uint64_t>(strings.size());
  for (const std::string& text : strings) payload.add_string(text);
  set(key, kArray, std::move(payload.data));
}
void GgufFileSpec::set_i32s(const std::string& key, const std::vector<std::int32_t>& integers) {
  Bytes payload;
  payload.add<std::uint32_t>(kI32).add<std::uint64_t>(integers.size());
  for (const std::int32_t value : integers) payload.add(value);
  set(key, kArray, std::move(payload.data));
}

void GgufFileSpec::erase(std::string_view key) {
  std::erase_if(values, [&](const Value& value) { return value.key == key; });
}
GgufFileSpec::Value& GgufFileSpec::value(std::string_view key) {
  return find_named(values, key, &Value::key);
}
GgufFileSpec::Tensor& GgufFileSpec::tensor(std::string_view name) {
  return find_named(tensors, name, &Tensor::name);
}
void GgufFileSpec::erase_tensor(std::string_view name) {
  std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
}

namespace {

std::vector<std::byte> header(const GgufFileSpec& spec) {
  constexpr auto kAuto = GgufFileSpec::kAuto;
  Bytes out;
  out.add_text(spec.magic).add(spec.version);
  out.add(spec.num_tensors == kAuto ? std::uint64_t{spec.tensors.size()} : spec.num_tensors);
  out.add(spec.num_values == kAuto ? std::uint64_t{spec.values.size()} : spec.num_values);
  for (const auto& value : spec.values) {
    out.add_string(value.key).add(value.type).append(value.payload);
  }
  std::uint64_t offset = 0;
  for (const auto& tensor : spec.tensors) {
    out.add_string(tensor.name).add(static_cast<std::uint32_t>(tensor.dimensions.size()));
    for (const std::uint64_t dimension : tensor.dimensions) out.add(dimension);
    out.add(tensor.type).add(tensor.offset == kAuto ? offset : tensor.offset);
    offset = align_up(offset + tensor.data.size(), spec.alignment);
  }
  return std::move(out.data);
}

}  // namespace

std::size_t GgufFileSpec::header_size() const { return header(*this).size(); }

std::vector<std::byte> GgufFileSpec::bytes() const {
  std::vector<std::byte> out = header(*this);
  for (const Tensor& tensor : tensors) {
    out.resize(align_up(out.size(), alignment));
    out.insert(out.end(), tensor.data.begin(), tensor.data.end());
  }
  return out;
}

}  // namespace specdec::testing
