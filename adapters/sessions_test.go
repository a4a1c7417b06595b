package adapters_test

import (
	"testing"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

func passwordLogin(t testing.TB, device iot.DeviceID, password string) adapters.Login {
	t.Helper()
	l, err := adapters.PasswordLogin(string(device)+"@"+string(adaptertest.Tenant), password)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
