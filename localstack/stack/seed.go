package stack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
)

// What localstack/seed has: secrets of a deployment that only this machine reaches.
const (
	Tenant           = "ACME"
	DeviceID         = "meter"
	DeviceUser       = "meter-1@ACME"
	DevicePassword   = "meter-secret"
	Operator         = "admin"
	OperatorPassword = "operator-secret"
	App              = "shop"
	AppPassword      = "shop-secret"
)

func (s *Stack) seedFile(name string) string { return s.repository("localstack", "seed", name) }

// seed makes the tenant and the device by the management API.
func (s *Stack) seed(ctx context.Context) error {
	for _, step := range []struct{ method, path, file string }{
		{http.MethodPost, "/v1/tenants/" + Tenant, "tenant.json"},
		{http.MethodPost, "/v1/devices/" + Tenant + "/" + DeviceID, "device.json"},
		{http.MethodPut, "/v1/credentials/" + Tenant + "/" + DeviceID, "credentials.json"},
	} {
		body, err := os.ReadFile(s.seedFile(step.file))
		if err != nil {
			return err
		}
		code, answer, err := s.Manage(ctx, step.method, step.path, body)
		if err == nil && code > 299 {
			err = fmt.Errorf("answered %d %.500s", code, answer)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w; the function wrote:\n%s", step.method, step.path, err, tail(s.Log("management")))
		}
	}
	return nil
}

// Manage makes a request to the management API as the operator.
func (s *Stack) Manage(ctx context.Context, method, path string, body []byte) (code int, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Management+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.SetBasicAuth(Operator, OperatorPassword)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(said), err
}
