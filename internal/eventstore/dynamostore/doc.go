// Package dynamostore keeps stored events in one DynamoDB table of its own.
package dynamostore
