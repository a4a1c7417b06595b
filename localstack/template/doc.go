// Package template reads a CloudFormation template as far as a deployment on one
// machine needs it: parameters with their defaults and limits, conditions, and the
// properties of resources with Ref, Sub, GetAtt, If, Not, Equals and Join. So what is
// made locally is what the template says. It makes nothing itself: whoever makes a
// resource tells what Ref and GetAtt of it are.
//
//	s, err := template.Open("infra/aws/template.yaml", template.Options{Stack: "sluice", Parameters: map[string]string{"Management": "true"}})
//	properties, err := s.Properties("Table")
//	s.Made("Table", template.Resource{Ref: "sluice-Table"})
package template
