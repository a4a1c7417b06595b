// Package schema holds the JSON schema of the data of every type of CloudEvent
// in the catalogue, one file per type, named <type>.json (contract: events,
// section 1, dataschema). A type without data has none. It validates nothing
// by itself; readers of the platform ignore members they do not know, and so
// do the schemas.
package schema
