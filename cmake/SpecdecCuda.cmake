# SPECDEC_CUDA: AUTO takes nvcc where it is there, ON wants it, OFF leaves it alone. Sets SPECDEC_HAS_CUDA.
# The runtime is linked statically and finds the driver when the program runs, so a build with CUDA also runs without one.
set(SPECDEC_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
set_property(CACHE SPECDEC_CUDA PROPERTY STRINGS AUTO ON OFF)
set(SPECDEC_CUDA_ARCHITECTURES "80;90a-real" CACHE STRING "GPU architectures, as CMAKE_CUDA_ARCHITECTURES takes them")

set(SPECDEC_HAS_CUDA FALSE)
if(NOT SPECDEC_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX} AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES "${SPECDEC_CUDA_ARCHITECTURES}")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    find_package(CUDAToolkit)
  endif()
  if(CMAKE_CUDA_COMPILER AND CUDAToolkit_FOUND AND CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.4)
    set(SPECDEC_HAS_CUDA TRUE)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION) # CMake 3.25 does not know nvcc's
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    # The runtime of every target with CUDA code: the toolkit's, or in a program whose CUDA_RUNTIME_LIBRARY is None the
    # PTX machine's (tests/ptx), which has functions of the same names. Both link the same objects.
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    add_library(specdec_cudart INTERFACE)
    target_link_libraries(specdec_cudart INTERFACE
      $<IF:$<STREQUAL:$<TARGET_PROPERTY:CUDA_RUNTIME_LIBRARY>,None>,specdec_ptx_runtime,CUDA::cudart_static>)
    target_include_directories(specdec_cudart SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
    if(SPECDEC_BUILD_TESTS) # the PTX machine reads it as it stands
      target_compile_options(specdec_options INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xfatbin=-compress=false>)
    endif()
    set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
    if(SPECDEC_CCACHE)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${SPECDEC_CCACHE})
    endif()
  elseif(SPECDEC_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SPECDEC_CUDA=ON, but there is no CUDA toolkit of version 12.4 or later: "
                        "set CUDACXX to its nvcc, or SPECDEC_CUDA=OFF")
  endif()
endif()
message(STATUS "CUDA backend: ${SPECDEC_HAS_CUDA}")
