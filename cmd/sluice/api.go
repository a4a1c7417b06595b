package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// apiTimeout bounds one request that is no stream: a management API gives up earlier.
const apiTimeout = 2 * time.Minute

// maxReply bounds what is read of an answer: 200 tenants of 64 KiB, or 1 MiB of
// events in base64.
const maxReply = 32 << 20

// apiRequest is one request to a management API.
type apiRequest struct {
	method, path string // path escaped
	query        url.Values
	ifMatch      string // "" = no precondition
	contentType  string // of body; "" = application/json
	body         []byte // nil = none
}

// apiReply is an answer of the 200s.
type apiReply struct {
	version string // ETag
	body    []byte
}

// apiError is any other answer.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d)", e.text, e.status) }

// hasStatus says whether an error is an answer with a status.
func hasStatus(err error, status int) bool {
	var e *apiError
	return errors.As(err, &e) && e.status == status
}

// call makes one request.
func (c *managementClient) call(ctx context.Context, q apiRequest) (apiReply, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	u := c.base.JoinPath(q.path)
	u.RawQuery = q.query.Encode()
	var body io.Reader
	if q.body != nil {
		body = bytes.NewReader(q.body)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, u.String(), body)
	if err != nil {
		return apiReply{}, err
	}
	r.SetBasicAuth(c.user, c.password)
	if q.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if q.contentType != "" {
		r.Header.Set("Content-Type", q.contentType)
	}
	if q.ifMatch != "" {
		r.Header.Set("If-Match", q.ifMatch)
	}
	reply, err := c.http.Do(r)
	if err != nil {
		return apiReply{}, fmt.Errorf("%s: %w", c.base.Host, plainHTTPError(ctx, err))
	}
	defer reply.Body.Close()
	if reply.StatusCode < 200 || reply.StatusCode > 299 {
		text, _ := failureText(reply)
		return apiReply{}, &apiError{reply.StatusCode, text}
	}
	text, err := io.ReadAll(io.LimitReader(reply.Body, maxReply+1))
	if err != nil {
		return apiReply{}, fmt.Errorf("%s: %w", c.base.Host, plainHTTPError(ctx, err))
	}
	if len(text) > maxReply {
		return apiReply{}, fmt.Errorf("%s answers with more than %d bytes", c.base.Host, maxReply)
	}
	return apiReply{reply.Header.Get("ETag"), text}, nil
}

// getJSON reads a resource and decodes it.
func (c *managementClient) getJSON(ctx context.Context, path string, query url.Values, into any) error {
	reply, err := c.call(ctx, apiRequest{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(reply.body, into); err != nil {
		return fmt.Errorf("%s answers what is not expected: %v: is this a management API of Sluice?", c.base.Host, err)
	}
	return nil
}

// searchPage is the answer to a search. Its results are kept as they came.
type searchPage struct {
	Total  int               `json:"total"`
	Result []json.RawMessage `json:"result"`
}

// idOf is the id of a result of a search.
func idOf(result json.RawMessage) string {
	var r struct{ ID string }
	_ = json.Unmarshal(result, &r)
	return r.ID
}

// searchQuery is what a list was asked for.
type searchQuery struct {
	filters, sort []string // JSON, as the API takes them
	gateways      string   // "", true or false
	limit         int      // 0 = all
}

// searchPageSize is the most that the API gives at once.
const searchPageSize = 200

// search hands each page of the results to take, and returns how many match.
// Nothing is no error.
func (c *managementClient) search(ctx context.Context, path string, q searchQuery, take func(total int, page []json.RawMessage) error) (total int, err error) {
	size := searchPageSize
	if q.limit > 0 {
		size = min(size, q.limit)
	}
	query := url.Values{"filterJson": q.filters, "sortJson": q.sort, "pageSize": {strconv.Itoa(size)}}
	if q.gateways != "" {
		query.Set("isGateway", q.gateways)
	}
	for offset, seen := 0, 0; ; offset++ {
		query.Set("pageOffset", strconv.Itoa(offset))
		var page searchPage
		err := c.getJSON(ctx, path, query, &page)
		if hasStatus(err, http.StatusNotFound) {
			return total, c.nothingFound(ctx, path, err)
		}
		if err != nil {
			return total, err
		}
		total = page.Total
		if q.limit > 0 {
			page.Result = page.Result[:min(len(page.Result), q.limit-seen)]
		}
		if err := take(total, page.Result); err != nil {
			return total, err
		}
		seen += len(page.Result)
		if len(page.Result) < size || seen >= total || seen == q.limit {
			return total, nil
		}
	}
}

// nothingFound tells an empty list from a tenant that is not there: the API
// answers both with 404.
func (c *managementClient) nothingFound(ctx context.Context, path string, notFound error) error {
	tenant, ok := cutPath(path, "/v1/devices/")
	if !ok {
		return nil
	}
	_, err := c.call(ctx, apiRequest{method: http.MethodGet, path: "/v1/tenants/" + tenant})
	if hasStatus(err, http.StatusNotFound) {
		return err
	}
	if err != nil && !hasStatus(err, http.StatusForbidden) {
		return notFound
	}
	return nil
}

func cutPath(path, prefix string) (rest string, ok bool) {
	if len(path) <= len(prefix) || path[:len(prefix)] != prefix {
		return "", false
	}
	return path[len(prefix):], true
}

// managed completes a command that asks the management API: its flags, its help
// and the client.
func managed(cmd *cobra.Command, run func(cmd *cobra.Command, c *managementClient, args []string) error) *cobra.Command {
	var f managementFlags
	f.add(cmd.Flags())
	cmd.Long += "\n" + managementFlagsHelp
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := f.open()
		if err != nil {
			return err
		}
		defer client.close()
		return f.scopesFor(run(cmd, client, args), args)
	}
	return cmd
}

// namesArgs checks the number of arguments and that those of a tenant and a
// device can be ones. usage is the part of the line behind the command.
func namesArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return wrongNumber(cmd, args)
		}
		return checkNames(args)
	}
}

// noArgs takes none.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) > 0 && cmd.HasSubCommands():
		return noSuchCommand(cmd, args[0])
	case len(args) > 0:
		return wrongNumber(cmd, args)
	}
	return nil
}

// wrongNumber says how many arguments there are, and which there should be.
func wrongNumber(cmd *cobra.Command, args []string) error {
	return fmt.Errorf("got %s; expected: %s", counted(len(args), "argument"), cmd.UseLine())
}
