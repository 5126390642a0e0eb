# decode_nifti_fuzz: the readers of hostile files in a program of their own, without Python.

file(GLOB sources CONFIGURE_DEPENDS csrc/decode_nifti/*.cpp)
list(FILTER sources EXCLUDE REGEX "_(cpu|bind)\\.cpp$")
add_executable(decode_nifti_fuzz tests/native/decode_nifti_fuzz.cpp ${sources} csrc/common/huge_pages.cpp
               csrc/common/isa.cpp csrc/common/thread_pool.cpp)
foreach(isa IN LISTS NEUROKERN_ISAS)
  target_sources(decode_nifti_fuzz PRIVATE $<TARGET_OBJECTS:neurokern_decode_nifti_${isa}>)
endforeach()
target_include_directories(decode_nifti_fuzz PRIVATE csrc)
target_link_libraries(decode_nifti_fuzz PRIVATE Threads::Threads)
neurokern_link_inflate(decode_nifti_fuzz)
neurokern_compile_options(decode_nifti_fuzz)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_definitions(decode_nifti_fuzz PRIVATE NEUROKERN_LIBFUZZER)
  target_compile_options(decode_nifti_fuzz PRIVATE -fsanitize=fuzzer)
  target_link_options(decode_nifti_fuzz PRIVATE -fsanitize=fuzzer)
endif()
