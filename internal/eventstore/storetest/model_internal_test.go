package storetest

import (
	"fmt"
	"testing"
)

// More runs of the model than a database has time for.
func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { play(t, &Memory{}, 1000+seed, 1+int(seed%4), 800) })
	}
}
