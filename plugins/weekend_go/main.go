// Whether a sign-in falls on a weekend (UTC): a plugin in Go, to show that the contract asks for no
// certain language.
//
//	go build -buildmode=c-shared -o libweekend.so .
//
// gives {"weekend": true, "weekday": "Saturday"}. It needs no grant. The Go runtime starts threads that never
// end and sets signal handlers, so run it with isolation = "process".
package main

/*
#cgo CFLAGS: -I${SRCDIR}/../sdk/include
#include "countersign_plugin.h"
#include <stdlib.h>

cs_status weekend_put(cs_sink *out, cs_str answer);
*/
import "C"

import (
	"encoding/json"
	"time"
	"unsafe"
)

type input struct {
	Request struct {
		TimeUnixS int64 `json:"time_unix_s"`
	} `json:"request"`
}

type answer struct {
	Weekend bool   `json:"weekend"`
	Weekday string `json:"weekday"`
}

//export weekendSignals
func weekendSignals(in C.cs_str, out *C.cs_sink) (status C.cs_status) {
	// No panic may leave a function of the header.
	defer func() {
		if recover() != nil {
			status = C.CS_INTERNAL
		}
	}()
	var given input
	// Copied: the input is borrowed for the call only.
	if json.Unmarshal(C.GoBytes(unsafe.Pointer(in.ptr), C.int(in.len)), &given) != nil {
		return C.CS_INVALID
	}
	day := time.Unix(given.Request.TimeUnixS, 0).UTC().Weekday()
	told, err := json.Marshal(answer{Weekend: day == time.Saturday || day == time.Sunday, Weekday: day.String()})
	if err != nil {
		return C.CS_INTERNAL
	}
	text := C.CBytes(told)
	defer C.free(text)
	return C.weekend_put(out, C.cs_str{ptr: (*C.uint8_t)(text), len: C.size_t(len(told))})
}

//export weekendSelftest
func weekendSelftest() (status C.cs_status) {
	defer func() {
		if recover() != nil {
			status = C.CS_INTERNAL
		}
	}()
	panic("the self-test panics on purpose")
}

func main() {}
