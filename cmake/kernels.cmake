# How an op's files become object code: one CPU object per instruction set, one CUDA object for all architectures.

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(NEUROKERN_ISAS v2 v3 v4)
else()
  set(NEUROKERN_ISAS base)
endif()
set(NEUROKERN_WARNINGS -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion)
if(NEUROKERN_WERROR)
  list(APPEND NEUROKERN_WARNINGS -Werror)
endif()

function(neurokern_require_files op)
  foreach(suffix .h _body.h _cpu.cpp _cuda.cu _bind.cpp)
    if(NOT EXISTS ${CMAKE_SOURCE_DIR}/csrc/${op}/${op}${suffix})
      message(FATAL_ERROR "neurokern: op '${op}' lacks csrc/${op}/${op}${suffix}")
    endif()
  endforeach()
endfunction()

# <op>_cpu.cpp once per instruction set, each in a namespace of its own (csrc/common/isa.h).
function(neurokern_add_cpu_kernel target op)
  foreach(isa IN LISTS NEUROKERN_ISAS)
    set(object neurokern_${op}_${isa})
    add_library(${object} OBJECT csrc/${op}/${op}_cpu.cpp)
    target_include_directories(${object} PRIVATE csrc)
    target_compile_definitions(${object} PRIVATE NEUROKERN_ISA=isa_${isa})
    if(NOT isa STREQUAL base)
      target_compile_options(${object} PRIVATE -march=x86-64-${isa})
    endif()
    # Wide vectors never cross an object's border, so the ABI that -Wpsabi warns of plays no part.
    # Contraction would round differently on each instruction set; results must be the same bits everywhere.
    target_compile_options(${object} PRIVATE -O3 -ffp-contract=off -fno-exceptions -fno-rtti -Wno-psabi)
    if(NEUROKERN_SANITIZE)
      target_compile_options(${object} PRIVATE -O1)  # with -O3 it takes minutes, and tells no more
    endif()
    neurokern_compile_options(${object})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${object}>)
  endforeach()
endfunction()

function(neurokern_compile_options target)
  target_compile_options(${target} PRIVATE ${NEUROKERN_WARNINGS})
  if(NEUROKERN_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${NEUROKERN_SANITIZE} -fno-omit-frame-pointer -g)
    target_link_options(${target} PRIVATE -fsanitize=${NEUROKERN_SANITIZE})
  endif()
endfunction()

# A macro, since enable_language() takes effect only in the caller's scope.
macro(neurokern_find_cuda found)
  set(${found} OFF)
  if(NOT NEUROKERN_CUDA STREQUAL "OFF")
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100 CACHE STRING "CUDA architectures; the last one also as PTX")
      enable_language(CUDA)
      find_package(CUDAToolkit REQUIRED)
      set(${found} ON)
    elseif(NEUROKERN_CUDA STREQUAL "ON")
      message(FATAL_ERROR "neurokern: NEUROKERN_CUDA=ON but no CUDA compiler was found. Put nvcc on PATH or set "
                          "CUDACXX=/path/to/nvcc; NEUROKERN_CUDA=OFF builds the CPU module alone.")
    endif()
  endif()
endmacro()

function(neurokern_cuda_options target)
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 17 CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
  string(REPLACE ";" "," architectures "${CMAKE_CUDA_ARCHITECTURES}")
  target_compile_definitions(${target} PRIVATE NEUROKERN_CUDA_MODULE NEUROKERN_CUDA_ARCHS="${architectures}")
  target_include_directories(${target} PRIVATE csrc)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:${NEUROKERN_WARNINGS}>
    $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false -Xcompiler=-Wall --Werror=all-warnings>)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.9)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size>)
  endif()
  # The static CUDA runtime must not leak into, or be taken from, the process of another library.
  target_link_libraries(${target} PRIVATE CUDA::cudart_static)
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL)
endfunction()
