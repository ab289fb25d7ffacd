// Invariants that the Python layer has already made true; a violation is a bug of the caller, reported, never undefined.
#pragma once

#include <stdexcept>
#include <string>

#define RANDLA_REQUIRE(condition, message) \
  do {                                     \
    if (!(condition)) throw std::invalid_argument(std::string("randla kernel: ") + (message)); \
  } while (0)
