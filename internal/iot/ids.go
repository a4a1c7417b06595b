package iot

// TenantID identifies a tenant: never an alias.
type TenantID string

// DeviceID identifies a device within its tenant. A gateway is a device that
// acts for others, so its id has this type too.
type DeviceID string
