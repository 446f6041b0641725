#include <specdec/specdec.h>

#include <iostream>

int main() {
  auto engine = specdec::Engine::load(specdec::Config::from_file("specdec.toml"));
  engine.submit({.messages = {{"user", "Write a haiku about rivers."}},
                 .sampling = {.temperature = 0.7f, .seed = 7}});
  while (engine.step())
    for (const specdec::Output& out : engine.take_outputs()) std::cout << out.text << std::flush;
  std::cout << '\n';
}
