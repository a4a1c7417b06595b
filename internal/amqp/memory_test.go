package amqp_test

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// TestMemoryIsBounded decodes what asks for the most memory: claimed counts
// cost nothing, and what is there costs a bounded number of bytes each.
func TestMemoryIsBounded(t *testing.T) {
	const n = 1 << 16
	compound := func(code byte, count int, element ...byte) []byte {
		return wide{}.compound(nil, code, count, bytes.Repeat(element, count))
	}
	for _, tt := range []struct {
		name    string
		bytes   []byte
		most    int // bytes of memory
		refused bool
	}{
		{"list of empty lists", compound(0xd0, n, 0x45), 150 * n, false},
		{"list of empty list8s", compound(0xd0, n, 0xc0, 1, 0), 150 * n, false},
		{"list of empty maps", compound(0xd0, n, 0xc1, 1, 0), 150 * n, false},
		{"list of empty arrays", compound(0xd0, n, 0xe0, 2, 0, 0x40), 4 * 150 * n, false},
		{"map of nulls", compound(0xd1, n, 0x40), 150 * n, false},
		{"list of four billion", []byte{0xd0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40}, 4096, true},
		{"array of four billion nulls", []byte{0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40}, 4096, true},
		{"array of four billion empty lists", []byte{0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x45}, 4096, true},
		{"binary of four billion", []byte{0xb0, 0xff, 0xff, 0xff, 0xff, 1}, 4096, true},
		{"array of 1024 empty lists", []byte{0xf0, 0, 0, 0, 5, 0, 0, 4, 0, 0x45}, 1024 * 150, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := amqp.DecodeValue(tt.bytes)
			runtime.ReadMemStats(&after)
			if (err != nil) != tt.refused {
				t.Errorf("got error %v", err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > uint64(tt.most) {
				t.Errorf("%d bytes of input took %d bytes of memory, at most %d expected", len(tt.bytes), got, tt.most)
			}
		})
	}
}
