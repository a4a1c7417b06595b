package registry

import (
	"bytes"
	"encoding/json"

	"github.com/sluice-iot/sluice/internal/iot"
)

// bulkOps are the values of an item's member op.
var bulkOps = map[string]WriteOp{
	"create": CreateOp, "update": UpdateOp, "put": PutOp,
	"enable": SetEnabledOp, "disable": SetEnabledOp, "delete": DeleteOp,
}

// DecodeBulkItem reads one item of a bulk request; members are checked as in
// single requests. The item has its ID even where the error says what else is wrong.
func DecodeBulkItem(text []byte) (BulkItem, error) {
	var raw struct {
		Op          string          `json:"op"`
		ID          iot.DeviceID    `json:"id"`
		Device      json.RawMessage `json:"device"`
		Credentials json.RawMessage `json:"credentials"`
		Generate    bool            `json:"generate"`
		AuthID      string          `json:"auth-id"`
		IfMatch     string          `json:"if-match"`
	}
	if err := decodeLine(text, &raw); err != nil {
		return BulkItem{ID: raw.ID}, err
	}
	item := BulkItem{ID: raw.ID, Generate: raw.Generate, AuthID: raw.AuthID, IfVersion: raw.IfMatch}
	var known bool
	if item.Op, known = bulkOps[raw.Op]; !known {
		return item, invalid("op %.20q is none of create, update, put, enable, disable, delete", raw.Op)
	}
	replaces := item.Op == CreateOp || item.Op == UpdateOp || item.Op == PutOp
	switch {
	case !replaces && (present(raw.Device) || present(raw.Credentials) || raw.Generate):
		return item, invalid("%s takes no device and no credentials", raw.Op)
	case replaces && item.Op != CreateOp && !present(raw.Device):
		return item, invalid("member device is missing; %s replaces the whole device", raw.Op)
	case raw.AuthID != "" && !raw.Generate:
		return item, invalid("auth-id goes with generate")
	}
	if item.Op == SetEnabledOp {
		enabled := raw.Op == "enable"
		item.Device.Enabled = &enabled
	}
	return item, item.decodeParts(raw.Device, raw.Credentials)
}

func (i *BulkItem) decodeParts(device, credentials json.RawMessage) (err error) {
	if present(device) {
		if i.Device, err = DecodeDevice(device); err != nil {
			return err
		}
	}
	if present(credentials) {
		i.Credentials, err = DecodeCredentials(credentials)
	}
	return err
}

// ExportFormat and ExportVersion are in the header of an export.
const (
	ExportFormat  = "sluice-tenant"
	ExportVersion = 1
)

// DecodeExportHeader reads the first line of an export.
func DecodeExportHeader(text []byte) (iot.TenantID, iot.Tenant, error) {
	var h struct {
		Format  string          `json:"format"`
		Version int             `json:"version"`
		ID      iot.TenantID    `json:"tenant-id"`
		Tenant  json.RawMessage `json:"tenant"`
	}
	if err := decodeLine(text, &h); err != nil {
		return "", iot.Tenant{}, invalid("line 1: %v", err)
	}
	if h.Format != ExportFormat || h.Version != ExportVersion {
		return "", iot.Tenant{}, invalid("line 1: format %.40q version %d, want %q version %d", h.Format, h.Version, ExportFormat, ExportVersion)
	}
	if !present(h.Tenant) {
		return "", iot.Tenant{}, invalid("line 1: member tenant is missing")
	}
	t, err := DecodeTenant(h.Tenant)
	return h.ID, t, err
}

// DecodeExportLine reads a further line of an export: a device to put, or, when
// end is true, the number of devices that there should have been.
func DecodeExportLine(text []byte) (item BulkItem, end bool, devices int, err error) {
	var raw struct {
		ID          iot.DeviceID     `json:"id"`
		Device      json.RawMessage  `json:"device"`
		Status      iot.DeviceStatus `json:"status"`
		Credentials json.RawMessage  `json:"credentials"`
		End         bool             `json:"end"`
		Devices     *int             `json:"devices"`
	}
	if err := decodeLine(text, &raw); err != nil {
		return BulkItem{ID: raw.ID}, false, 0, err
	}
	if raw.End && raw.Devices != nil {
		return BulkItem{}, true, *raw.Devices, nil
	}
	item = BulkItem{Op: PutOp, ID: raw.ID, AutoProvisioned: raw.Status.AutoProvisioned}
	if !present(raw.Device) {
		return item, false, 0, invalid("member device is missing")
	}
	return item, false, 0, item.decodeParts(raw.Device, raw.Credentials)
}

func decodeLine(text []byte, dst any) error {
	b := bytes.TrimSpace(text)
	if !validJSON(b) {
		return invalid("is not valid JSON")
	}
	if b[0] != '{' {
		return invalid("is not an object")
	}
	return decode("item", b, dst)
}

func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }
