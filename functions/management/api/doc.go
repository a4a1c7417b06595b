// Package api has the types and the interface of the management API. They are
// made from the OpenAPI document ../openapi.yaml; the table Operations is what
// requests are routed by, so that the document and the server cannot differ.
//
//	func (s *server) ReadTenant(ctx context.Context, r api.ReadTenantRequestObject) (api.ReadTenantResponseObject, error)
package api
