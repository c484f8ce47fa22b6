# What stands behind the shop. A resource that needs no provider keeps the example small: it remembers which image the
# infrastructure was last applied for.
variable "image_repository" { type = string }
variable "image_tag" { type = string }
variable "image_digest" { type = string }
variable "source_project" { type = string }
variable "source_commit" { type = string }

resource "terraform_data" "deployed" {
  input = {
    image  = "${var.image_repository}:${var.image_tag}@${var.image_digest}"
    source = "${var.source_project}@${var.source_commit}"
  }
}

output "deployed" {
  value = terraform_data.deployed.output
}
