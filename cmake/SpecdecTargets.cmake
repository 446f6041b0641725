# One target per folder. specdec_library(NAME deps...) makes a static library of the .cc files beside the caller;
# specdec_test(NAME deps...) makes one doctest program of them and registers it with CTest.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(SPECDEC_CCACHE ccache)
if(SPECDEC_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${SPECDEC_CCACHE})
endif()

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

add_library(specdec_options INTERFACE)
# -ffp-contract=off: a fused multiply-add happens where the source says so and nowhere else, so that one expression has
# the same bits in every function it is inlined into. Row invariance rests on it.
set(cxx_options -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -ffp-contract=off
                # GCC 12 sees overlaps in std::string operator+ that are not there (GCC bug 105329).
                $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
set(cuda_options --fmad=false -Xcompiler=-Wall,-Wextra)
if(SPECDEC_WERROR)
  list(APPEND cxx_options -Werror)
  list(APPEND cuda_options -Werror=all-warnings)
endif()
target_compile_options(specdec_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${cxx_options}>"
                                                 "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_options}>")
if(SPECDEC_SANITIZE)
  target_compile_options(specdec_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SPECDEC_SANITIZE};-fno-sanitize-recover=all;-fno-omit-frame-pointer>")
  target_link_options(specdec_options INTERFACE -fsanitize=${SPECDEC_SANITIZE})
endif()
target_include_directories(specdec_options INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                                     $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
                                                     $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)

function(specdec_library name)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cc")
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC specdec_options ${ARGN})
endfunction()

function(specdec_test name)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cc")
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE specdec_options specdec_test_main ${ARGN})
  target_compile_definitions(${name} PRIVATE SPECDEC_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  # Measured costs are kept in the user's cache: tests have one of their own.
  set_tests_properties(${name} PROPERTIES ENVIRONMENT XDG_CACHE_HOME=${CMAKE_BINARY_DIR}/test-cache)
endfunction()

# The same program once more with its engines on a GPU; without one its cases count as skipped.
function(specdec_test_on_gpu name)
  if(SPECDEC_HAS_CUDA)
    add_test(NAME ${name}_on_gpu COMMAND ${name})
    set_tests_properties(${name}_on_gpu PROPERTIES ENVIRONMENT
                         "SPECDEC_TEST_DEVICE=cuda;XDG_CACHE_HOME=${CMAKE_BINARY_DIR}/test-cache")
  endif()
endfunction()
