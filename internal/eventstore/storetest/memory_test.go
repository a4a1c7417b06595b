package storetest_test

import (
	"testing"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) eventstore.Store { return &storetest.Memory{} })
}
